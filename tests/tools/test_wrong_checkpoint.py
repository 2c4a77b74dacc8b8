"""No command evaluates, resumes or writes anything from a checkpoint of another model."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mmengine.runner import Runner

import lm4ve
from lm4ve.analysis.loading import load_model
from lm4ve.errors import UserError
from lm4ve.runner.config import read_config
from tests.helpers.tiny_runs import PLACE, WRONG, write_runs
from tests.helpers.tools import run_tool_here

for package in ('mmpretrain', 'mmaction', 'pandas'):
    pytest.importorskip(package)
from tests.helpers.video.videos import write_noise  # noqa: E402


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    """A copy of small trained models, in the place that their configs name, and a video."""
    write_runs(tmp_path, 'vit_frozen', 'vit_mlp', 'videomae', 'pointmae', 'vectornet')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('LM4VE_CACHE', str(tmp_path / 'cache'))
    write_noise(Path('in.mp4'), frames=6)


def tool(path: str, words: str) -> Callable:
    """Return what runs a tool with some words, of which one is the config, and with flags."""
    return lambda config, *flags: run_tool_here(
        path, *words.format(config).split(), *flags
    )


def runner_of(config: str) -> Runner:
    """A Runner that somebody builds from a config with the hook."""
    cfg = read_config(config)
    cfg.default_hooks.whole = dict(type='lm4ve.WholeCheckpointHook')
    cfg.update(work_dir='work', load_from='given.pth', experiment_name=Path.cwd().name)
    return Runner.from_cfg(cfg)


DRAW = 'analysis/visualize_activations.py', '{} given.pth --indices 0 --out-dir made'
EVALUATE = 'test.py', '{} given.pth --work-dir work --out made.json --out-item metrics'
#: What uses a checkpoint, given a config.
USES = dict(
    draw_scenes=tool('motion/draw.py', '{} made.png --checkpoint given.pth'),
    label_video=tool('video/demo.py', 'in.mp4 {} given.pth made.mp4 --device cpu'),
    visualize=tool(*DRAW),
    release=tool('make_release.py', '{} given.pth made'),
    resume=tool('train.py', '{} --resume given.pth --work-dir made'),
    evaluate=tool(*EVALUATE),
    load=lambda config: load_model(read_config(config), 'given.pth'),
    get=lambda config: lm4ve.apis.get_model(config, pretrained='given.pth'),
    infer=lambda config: lm4ve.apis.inference(
        config, 'given.pth', 'in.mp4', device='cpu'
    ),
    validate=lambda config: runner_of(config).val(),
)
#: The model whose config it gets, if it is another one than 'vit_frozen'.
MODELS = dict(draw_scenes='vectornet', label_video='videomae', infer='videomae')


def give(model: str, change=lambda state: state) -> None:
    hub = dict(log_scalars={}, runtime_info={}, resumed_keys={})
    content = torch.load(f'{PLACE}/{model}.pth', weights_only=True)
    state = change(content['state_dict'])
    torch.save(content | dict(message_hub=hub, state_dict=state), 'given.pth')


#: Every wrong state for four uses, two wrong states for every use.
PAIRS = [
    (use, change)
    for use in USES
    for change in WRONG
    if use in ('evaluate', 'resume', 'get', 'infer')
    or change in ('of another task', 'with an MLP')
]


@pytest.mark.parametrize('use, change', PAIRS)
def test_wrong_checkpoint_is_refused_without_output(use, change):
    model, (change, named) = MODELS.get(use, 'vit_frozen'), WRONG[change]
    give(model, change)
    with pytest.raises(UserError, match=named):
        USES[use](f'{PLACE}/{model}.py')
    endings = ('.h5', '.html', '.mp4', '.png', '.pth')
    made = {
        p.name for p in Path().rglob('*') if p.suffix in endings and PLACE not in str(p)
    }
    assert made <= {'given.pth', 'in.mp4'} and not Path('made.json').exists()


@pytest.mark.parametrize(
    'model, change', [('vit_mlp', WRONG['of another task'][0]), ('vit_frozen', dict)]
)
@pytest.mark.parametrize('use', ['release', 'evaluate'])
def test_mlp_control_refuses_other_checkpoints(use, model, change):
    """The same for a config with an MLP block, for which a block with a record is wrong."""
    give(model, change)
    with pytest.raises(UserError, match='is a MLPBlock|backbone'):
        USES[use](f'{PLACE}/vit_mlp.py')


@pytest.mark.parametrize('change', [change for change, _ in [*WRONG.values()][:-1]])
def test_allow_partial_evaluates_anyway(change):
    give('vit_frozen', change)
    USES['evaluate'](f'{PLACE}/vit_frozen.py', '--allow-partial')
    assert json.loads(Path('made.json').read_text())
    load_model(read_config(f'{PLACE}/vit_frozen.py'), 'given.pth', allow_partial=True)


def test_fine_tuning_loads_what_fits():
    give('vit_frozen', WRONG['of another task'][0])
    runner_of(f'{PLACE}/vit_frozen.py').train()
