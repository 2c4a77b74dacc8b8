"""Whatever loads a checkpoint says what its training had otherwise than the config."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.runner import Runner

import lm4ve
from lm4ve.analysis.loading import load_model
from lm4ve.commands.flags import FLAGS
from lm4ve.errors import CheckpointError, UserError
from lm4ve.runner.checkpoint_files import read_checkpoint, write_checkpoint
from lm4ve.runner.config import read_config
from lm4ve.zoo import WEIGHTS, find_config
from tests.helpers.logs import record_logs
from tests.helpers.tools import run_tool_here

pytest.importorskip('mmpretrain')

#: A demo whose weights come with lm4ve, and hold the config of its training.
DEMO = 'vit-demo_none_digits'
#: What a config may have otherwise, though the weights fit.
OTHER = {
    'model.backbone.arch.num_heads: trained with 4, now 8': (
        'model = dict(backbone=dict(arch=dict(num_heads=8)))'
    ),
    'data_preprocessor.mean: trained with [77.9, 77.9, 77.9], now [0, 0, 0]': (
        'data_preprocessor = dict(mean=[0, 0, 0])'
    ),
}


@pytest.fixture(autouse=True)
def warnings(tmp_path, monkeypatch) -> list[str]:
    """What is warned of, in a folder with two configs."""
    monkeypatch.chdir(tmp_path)
    base = f"_base_ = '{find_config(DEMO)}'\n"
    Path('same.py').write_text(base)
    Path('other.py').write_text(base + '\n'.join(OTHER.values()))
    return record_logs(monkeypatch, 'lm4ve.runner.trained_config')


def weights() -> str:
    return str(WEIGHTS / f'{DEMO}.safetensors')


def runner_of(config: str, strict: bool) -> Runner:
    """A Runner that somebody builds from a config with the hook."""
    cfg = read_config(config)
    hook = dict(type='lm4ve.WholeCheckpointHook', strict_config=strict)
    cfg.default_hooks.whole_checkpoint = hook
    name = Path.cwd().name + config
    cfg.update(work_dir='work', load_from=weights(), experiment_name=name)
    return Runner.from_cfg(cfg)


def tool(path: str, words: str) -> Callable[[str, bool], None]:
    """Return a function that runs a tool; ``{}`` in its words stands for the config."""

    def run(config: str, strict: bool) -> None:
        flags = ['--strict-config'] if strict else []
        words_of_run = words.format(config, weights()).split()
        run_tool_here(path, *words_of_run, *flags)

    return run


def validate(config: str, strict: bool) -> None:
    runner_of(config, strict).val()


def get_model(config: str, strict: bool) -> None:
    lm4ve.apis.get_model(config, weights(), strict_config=strict)


def infer(config: str, strict: bool) -> None:
    picture = np.zeros((8, 8, 3), np.uint8)
    lm4ve.apis.inference(config, weights(), picture, device='cpu', strict_config=strict)


def load_for_analysis(config: str, strict: bool) -> None:
    load_model(read_config(config), weights(), strict_config=strict)


def host_api(config: str, strict: bool) -> None:
    """mmpretrain's own function."""
    from mmpretrain import get_model

    cfg = read_config(config)
    hook = dict(type='lm4ve.WholeCheckpointHook', strict_config=strict)
    cfg.default_hooks.whole_checkpoint = hook
    get_model(cfg, pretrained=weights())


#: What uses a checkpoint, given a config and whether a difference is an error.
USES = dict(
    test=tool('test.py', '{} {} --work-dir work'),
    visualize=tool(
        'analysis/visualize_activations.py', '{} {} --indices 0 --out-dir drawn'
    ),
    export=tool(
        'export.py', '{} {} --format safetensors --overwrite --out made.safetensors'
    ),
    validate=validate,
    get_model=get_model,
    inference=infer,
    analysis=load_for_analysis,
    host_api=host_api,
)


@pytest.mark.parametrize('use', USES)
def test_config_of_another_training_is_listed_in_one_warning(use, warnings):
    USES[use]('same.py', strict=True)
    assert warnings == []
    USES[use]('other.py', strict=False)
    (warning,) = warnings
    lines = warning.splitlines()
    assert 'was trained otherwise' in lines[0]
    assert [line.strip() for line in lines[1:]] == sorted(OTHER)
    with pytest.raises(CheckpointError, match='num_heads: trained with 4, now 8'):
        USES[use]('other.py', strict=True)


def test_every_command_that_loads_a_checkpoint_has_the_flag():
    for command, flags in FLAGS.items():
        if '--allow-partial' in flags or command == 'train':
            assert '--strict-config' in flags, command


def train(*flags: str) -> None:
    run_tool_here('train.py', *flags, '--work-dir', 'trained')


def test_resumed_training_lists_what_acts_in_training(warnings):
    short = ['train_dataloader.dataset.indices=64', 'train_cfg.val_interval=9']
    train('same.py', '--epochs', '1', '--cfg-options', *short)
    again = ['same.py', '--epochs', '2', '--resume', '--cfg-options', *short]
    train(*again, '--strict-config')
    assert warnings == []
    again[2] = '3'
    other = [
        'data_preprocessor.std=[50,50,50]',
        'model.head.loss.label_smooth_val=0.5',
        'optim_wrapper.optimizer.betas=(0.5,0.9)',
        'allow_new.optim_wrapper.clip_grad=dict(max_norm=3.0)',
    ]
    with pytest.raises(CheckpointError, match='label_smooth_val: trained with 0.1'):
        train(*again, *other, '--strict-config')
    train(*again, *other)
    (warning,) = warnings
    lines = [line.strip() for line in warning.splitlines()[1:]]
    assert lines == [
        'data_preprocessor.std: trained with [95.9, 95.9, 95.9], now [50, 50, 50]',
        'model.head.loss.label_smooth_val: trained with 0.1, now 0.5',
        "optim_wrapper.clip_grad: trained without it, now {'max_norm': 3.0}",
        'optim_wrapper.optimizer.betas: trained without it, now [0.5, 0.9], '
        'which does not apply: the optimizer keeps its state',
    ]


def test_fine_tuning_compares_nothing(warnings):
    short = ['train_dataloader.dataset.indices=64', f'load_from={weights()}']
    train('other.py', '--epochs', '1', '--no-validate', '--cfg-options', *short)
    assert warnings == []


def test_strict_training_needs_a_checkpoint():
    with pytest.raises(UserError, match='--strict-config needs --resume'):
        train('same.py', '--strict-config')


def test_export_passes_the_config_of_the_training_on(warnings):
    """A file that was exported under another config still says how it was trained."""
    USES['export']('other.py', strict=False)
    warnings.clear()
    load_model(read_config('same.py'), 'made.safetensors', strict_config=True)
    load_model(read_config('other.py'), 'made.safetensors')
    assert len(warnings) == 1


def test_release_is_tested_with_its_own_config(warnings):
    run_tool_here('make_release.py', 'vit-demo_minilm_digits', 'pretrained', 'made')
    name = 'made/vit-demo_minilm_digits'
    words = f'{name}.py {name}.pth --strict-config --work-dir work'
    run_tool_here('test.py', *words.split())
    # Nor does the training's config differ, whose block names the language model.
    words = f'vit-demo_minilm_digits {name}.pth --strict-config --work-dir work'
    run_tool_here('test.py', *words.split())
    assert warnings == []


def test_config_in_a_checkpoint_is_not_run():
    content = read_checkpoint(weights())
    code = "open('executed', 'w')"
    meta = dict(cfg=f'{code}\nmodel = dict(type={code})\n')
    write_checkpoint(content['state_dict'], meta, 'hostile.pth')
    assert torch.load('hostile.pth', weights_only=True)['meta'] == meta
    load_model(read_config('same.py'), 'hostile.pth')
    run_tool_here('test.py', *'same.py hostile.pth --work-dir work'.split())
    with pytest.raises(CheckpointError, match='not compared'):
        load_model(read_config('same.py'), 'hostile.pth', strict_config=True)
    assert not Path('executed').exists()
