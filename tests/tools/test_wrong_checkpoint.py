"""No command writes anything from a checkpoint of another model."""

from pathlib import Path

import pytest
import torch

from lm4ve.commands import release, visualize
from lm4ve.errors import CheckpointError, UserError
from tests.helpers.tiny_runs import PLACE, write_runs
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


#: What uses a checkpoint -> the model whose config it gets.
USES = {
    'draw': (draw, 'vectornet'),
    'video demo': (video_demo, 'videomae'),
    'visualize': (visualized, 'vit_frozen'),
    'release': (released, 'vit_frozen'),
    'resume': (resumed, 'vit_frozen'),
}


def checkpoint_of(name: str) -> dict:
    content = torch.load(f'{PLACE}/{name}.pth', weights_only=True)
    return content | dict(message_hub=dict(log_scalars={}, runtime_info={}, resumed_keys={}))


def of_another_task(state: dict) -> dict:
    return {k: v for k, v in checkpoint_of('pointmae')['state_dict'].items() if 'llm_s' not in k}


def without_a_block(state: dict) -> dict:
    return {k: v for k, v in state.items() if not k.startswith('neck.')}


def with_an_mlp(state: dict) -> dict:
    state = {k: v for k, v in state.items() if not k.endswith('llm_source')}
    width = len(state['neck.mapper_in.weight'])
    return state | {f'neck.block.norm.{k}': torch.ones(width) for k in ('weight', 'bias')}


#: What is given -> how it comes from the right state, and what the error says.
WRONG = {
    'of another task': (of_another_task, 'neck|encoder|backbone'),
    'without a block': (without_a_block, 'neck'),
    'with an MLP': (with_an_mlp, 'llm_source'),
    'empty': (lambda _: {}, 'no model state'),
}


@pytest.mark.parametrize('change, named', WRONG.values(), ids=WRONG)
@pytest.mark.parametrize('use, model', USES.values(), ids=USES)
def test_wrong_checkpoint_is_refused_without_output(use, model, change, named):
    content = checkpoint_of(model)
    content['state_dict'] = change(content['state_dict'])
    torch.save(content, 'given.pth')
    with pytest.raises((CheckpointError, UserError), match=named):
        use(f'{PLACE}/{model}.py')
    made = [p for p in Path().rglob('*') if p.suffix in ('.h5', '.html', '.mp4', '.png', '.pth')]
    assert {p.name for p in made if PLACE not in str(p)} <= {'given.pth', 'in.mp4'}


@pytest.mark.parametrize('change, named', WRONG.values(), ids=WRONG)
def test_mlp_control_refuses_other_checkpoints(change, named):
    """The same for a config with an MLP block, for which a block with a record is wrong."""
    content = checkpoint_of('vit_mlp')
    if change is with_an_mlp:
        content['state_dict'] = checkpoint_of('vit_frozen')['state_dict']
    else:
        content['state_dict'] = change(content['state_dict'])
    torch.save(content, 'given.pth')
    with pytest.raises((CheckpointError, UserError), match=named):
        released(f'{PLACE}/vit_mlp.py')


@pytest.mark.parametrize('use', [visualized, released])
@pytest.mark.parametrize('meta', [None, [1], dict(dataset_meta='digits')])
def test_unused_checkpoint_fields_are_ignored(use, meta):
    content = checkpoint_of('vit_frozen')
    torch.save(content | dict(meta=meta, message_hub=[0]), 'given.pth')
    use(f'{PLACE}/vit_frozen.py')


def test_evaluation_ignores_message_hub():
    content = checkpoint_of('vit_frozen')
    torch.save(content | dict(message_hub=dict(log_scalars=3)), 'given.pth')
    run_tool_here('test.py', f'{PLACE}/vit_frozen.py', 'given.pth', '--work-dir', 'work')
