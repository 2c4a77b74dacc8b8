"""Small runs of every task: configs in ``tests/data/tiny_runs``, and checkpoints made here."""

import functools
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from lm4ve.runner.config import read_config
from tests.helpers.tasks import ROOT

CONFIGS = ROOT / 'tests/data/tiny_runs'
#: Where :func:`write_runs` puts them, below the folder that it is given.
PLACE = 'runs'


def write_runs(folder: Path, *names: str) -> None:
    """Copy the configs to ``folder/runs`` and put a checkpoint beside each one named.

    Args:
        folder (Path): The folder.
        *names (str): Stems of configs: 'vit_frozen', 'vit_mlp', 'videomae',
            'pointbert', 'pointmae', 'vectornet'.
    """
    shutil.copytree(CONFIGS, folder / PLACE)
    for name in names:
        classes = [str(digit) for digit in range(10)]
        meta = dict(epoch=3, iter=60, dataset_meta=dict(classes=classes))
        content = dict(state_dict=state_of(name), meta=meta)
        torch.save(content, folder / PLACE / f'{name}.pth')


@functools.cache
def state_of(name: str) -> dict[str, torch.Tensor]:
    """Return the state in the checkpoint of a run."""
    cfg = read_config(CONFIGS / f'{name}.py', set_scope=False)
    if cfg.get('data_preprocessor') is not None:
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    torch.manual_seed(3)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return enlarged(MODELS.build(cfg.model)).state_dict()


def enlarged(model: nn.Module, std: float = 0.3) -> nn.Module:
    """Give matrices values as large as after training, or nothing would be seen."""
    for p in model.parameters():
        if p.requires_grad and p.dim() > 1:
            nn.init.normal_(p, std=std)
    return model


def without(*parts: str) -> Callable[[dict], dict]:
    """Return a function that removes the entries of a state with a part in their name."""

    def change(state: dict) -> dict:
        return {
            name: tensor
            for name, tensor in state.items()
            if not any(part in name for part in parts)
        }

    return change


def of_another_task(state: dict) -> dict:
    return state_of('pointmae')


def with_an_mlp(state: dict) -> dict:
    norm = torch.ones(len(state['neck.mapper_in.weight']))
    changed = without('_extra_state')(state)
    changed['neck.block.norm.weight'] = norm
    changed['neck.block.norm.bias'] = norm
    return changed


def misshapen(state: dict) -> dict:
    return {**state, 'neck.mapper_in.weight': torch.zeros(3, 3)}


def empty(state: dict) -> dict:
    return {}


#: What is wrong with a state -> how it comes from the right one, and what our errors
#: name.
WRONG = {
    'of another task': (of_another_task, 'neck|encoder|backbone'),
    'without a block': (without('neck.'), 'neck'),
    'without its record': (without('_extra_state'), '_extra_state'),
    'with an MLP': (with_an_mlp, '_extra_state'),
    'without a layer': (without('layers.0.', 'blocks.0.'), 'layers.0|blocks.0'),
    'misshapen': (misshapen, 'mapper_in.weight'),
    'empty': (empty, 'no model state'),
}
