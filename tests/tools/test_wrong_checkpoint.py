"""No command evaluates, resumes or writes anything from a checkpoint of another model."""

import json
from pathlib import Path

import pytest
import torch
from mmengine.runner import Runner

from lm4ve.analysis.loading import load_model
from lm4ve.commands import release, visualize
from lm4ve.errors import UserError
from lm4ve.runner.config import read_config
from tests.helpers.tiny_runs import PLACE, WRONG, write_runs
from tests.helpers.tools import run_tool_here

for package in ('mmpretrain', 'mmaction', 'pandas'):
    pytest.importorskip(package)


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    """A copy of small trained models, in the place that their configs name."""
    write_runs(tmp_path, 'vit_frozen', 'vit_mlp', 'videomae', 'pointmae', 'vectornet')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('LM4VE_CACHE', str(tmp_path / 'cache'))


def draw(config: str) -> None:
    run_tool_here('motion/draw.py', config, 'made.png', '--checkpoint', 'given.pth')


def video_demo(config: str) -> None:
    from tests.tasks.video.videos import write_noise

    write_noise(Path('in.mp4'), frames=6)
    run_tool_here('video/demo.py', 'in.mp4', config, 'given.pth', 'made.mp4', '--device', 'cpu')


def visualized(config: str) -> None:
    visualize.main([config, 'given.pth', '--indices', '0', '--out-dir', 'made'])


def released(config: str) -> None:
    release.main([config, 'given.pth', 'made'])


def resumed(config: str) -> None:
    run_tool_here('train.py', config, '--resume', 'given.pth', '--work-dir', 'made')


def evaluated(config: str, *flags: str) -> None:
    out = '--out', 'made.json', '--out-item', 'metrics'
    run_tool_here('test.py', config, 'given.pth', '--work-dir', 'work', *out, *flags)


def analysed(config: str) -> None:
    load_model(read_config(config), 'given.pth')


def runner_of(config: str) -> Runner:
    """A Runner that somebody builds from a config with the hook."""
    cfg = read_config(config)
    cfg.default_hooks.whole = dict(type='lm4ve.WholeCheckpointHook')
    cfg.update(work_dir='work', load_from='given.pth', experiment_name=Path.cwd().name)
    return Runner.from_cfg(cfg)


def validated(config: str) -> None:
    runner_of(config).val()


#: What uses a checkpoint -> the model whose config it gets.
USES = {
    draw: 'vectornet',
    video_demo: 'videomae',
    visualized: 'vit_frozen',
    released: 'vit_frozen',
    resumed: 'vit_frozen',
    evaluated: 'vit_frozen',
    analysed: 'vit_frozen',
    validated: 'vit_frozen',
}


def give(model: str, change=lambda state: state) -> None:
    hub = dict(log_scalars={}, runtime_info={}, resumed_keys={})
    content = torch.load(f'{PLACE}/{model}.pth', weights_only=True)
    state = change(content['state_dict'])
    torch.save(content | dict(message_hub=hub, state_dict=state), 'given.pth')


#: Every wrong state for two uses, two wrong states for every use.
PAIRS = [
    (use, change)
    for use in USES
    for change in WRONG
    if use in (evaluated, resumed) or change in ('of another task', 'with an MLP')
]


@pytest.mark.parametrize('use, change', PAIRS)
def test_wrong_checkpoint_is_refused_without_output(use, change):
    change, named = WRONG[change]
    give(USES[use], change)
    with pytest.raises(UserError, match=named):
        use(f'{PLACE}/{USES[use]}.py')
    endings = ('.h5', '.html', '.mp4', '.png', '.pth')
    made = {p.name for p in Path().rglob('*') if p.suffix in endings and PLACE not in str(p)}
    assert made <= {'given.pth', 'in.mp4'} and not Path('made.json').exists()


@pytest.mark.parametrize(
    'model, change', [('vit_mlp', WRONG['of another task'][0]), ('vit_frozen', dict)]
)
@pytest.mark.parametrize('use', [released, evaluated])
def test_mlp_control_refuses_other_checkpoints(use, model, change):
    """The same for a config with an MLP block, for which a block with a record is wrong."""
    give(model, change)
    with pytest.raises(UserError, match='is a MLPBlock|backbone'):
        use(f'{PLACE}/vit_mlp.py')


@pytest.mark.parametrize('change', [change for change, _ in [*WRONG.values()][:-1]])
def test_allow_partial_evaluates_anyway(change):
    give('vit_frozen', change)
    evaluated(f'{PLACE}/vit_frozen.py', '--allow-partial')
    assert json.loads(Path('made.json').read_text())
    load_model(read_config(f'{PLACE}/vit_frozen.py'), 'given.pth', allow_partial=True)


def test_fine_tuning_loads_what_fits():
    give('vit_frozen', WRONG['of another task'][0])
    runner_of(f'{PLACE}/vit_frozen.py').train()
