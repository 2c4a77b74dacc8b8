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
    """Return a function of a config and flags that runs a tool.

    Args:
        path (str): The tool.
        words (str): Its arguments; ``{}`` stands for the config.
    """

    def run(config: str, *flags: str) -> None:
        run_tool_here(path, *words.format(config).split(), *flags)

    return run


def runner_of(config: str) -> Runner:
    """A Runner that somebody builds from a config with the hook."""
    cfg = read_config(config)
    cfg.default_hooks.whole = dict(type='lm4ve.WholeCheckpointHook')
    cfg.update(work_dir='work', load_from='given.pth', experiment_name=Path.cwd().name)
    return Runner.from_cfg(cfg)


def load_for_analysis(config: str) -> None:
    load_model(read_config(config), 'given.pth')


def get_model(config: str) -> None:
    lm4ve.apis.get_model(config, pretrained='given.pth')


def infer(config: str) -> None:
    lm4ve.apis.inference(config, 'given.pth', 'in.mp4', device='cpu')


def validate(config: str) -> None:
    runner_of(config).val()


#: What uses a checkpoint, given a config.
USES = dict(
    draw_scenes=tool('motion/draw.py', '{} made.png --checkpoint given.pth'),
    label_video=tool('video/demo.py', 'in.mp4 {} given.pth made.mp4 --device cpu'),
    visualize=tool(
        'analysis/visualize_activations.py',
        '{} given.pth --indices 0 --out-dir made',
    ),
    release=tool('make_release.py', '{} given.pth made'),
    resume=tool('train.py', '{} --resume given.pth --work-dir made'),
    evaluate=tool(
        'test.py',
        '{} given.pth --work-dir work --out made.json --out-item metrics',
    ),
    load=load_for_analysis,
    get=get_model,
    infer=infer,
    validate=validate,
)
#: The model whose config it gets, if it is another one than 'vit_frozen'.
MODELS = dict(draw_scenes='vectornet', label_video='videomae', infer='videomae')


def give(model: str, change: Callable) -> None:
    """Write 'given.pth': a model's checkpoint whose state is changed."""
    content = torch.load(f'{PLACE}/{model}.pth', weights_only=True)
    content['message_hub'] = dict(log_scalars={}, runtime_info={}, resumed_keys={})
    content['state_dict'] = change(content['state_dict'])
    torch.save(content, 'given.pth')


def pairs() -> list[tuple[str, str]]:
    """Every wrong state for four uses, two wrong states for every use."""
    found = []
    for use in USES:
        if use in ('evaluate', 'resume', 'get', 'infer'):
            changes = list(WRONG)
        else:
            changes = ['of another task', 'with an MLP']
        found += [(use, change) for change in changes]
    return found


@pytest.mark.parametrize('use, wrong', pairs())
def test_wrong_checkpoint_is_refused_without_output(use, wrong):
    model = MODELS.get(use, 'vit_frozen')
    change, named = WRONG[wrong]
    give(model, change)
    with pytest.raises(UserError, match=named):
        USES[use](f'{PLACE}/{model}.py')
    assert written_files() <= {'given.pth', 'in.mp4'}
    assert not Path('made.json').exists()


def written_files() -> set[str]:
    """Return the names of results, the small trained models' left out."""
    endings = ('.h5', '.html', '.mp4', '.png', '.pth')
    files = [file for file in Path().rglob('*') if file.suffix in endings]
    return {file.name for file in files if PLACE not in str(file)}


@pytest.mark.parametrize(
    'model, change', [('vit_mlp', WRONG['of another task'][0]), ('vit_frozen', dict)]
)
@pytest.mark.parametrize('use', ['release', 'evaluate'])
def test_mlp_control_refuses_other_checkpoints(use, model, change):
    """A config with an MLP block refuses a block with a record too."""
    give(model, change)
    with pytest.raises(UserError, match='is a MLPBlock|backbone'):
        USES[use](f'{PLACE}/vit_mlp.py')


@pytest.mark.parametrize('wrong', list(WRONG)[:-1])
def test_allow_partial_evaluates_anyway(wrong):
    change, _ = WRONG[wrong]
    give('vit_frozen', change)
    USES['evaluate'](f'{PLACE}/vit_frozen.py', '--allow-partial')
    assert json.loads(Path('made.json').read_text())
    load_model(read_config(f'{PLACE}/vit_frozen.py'), 'given.pth', allow_partial=True)


def test_fine_tuning_loads_what_fits():
    give('vit_frozen', WRONG['of another task'][0])
    runner_of(f'{PLACE}/vit_frozen.py').train()
