"""A small model of every task as a config and a checkpoint."""

from pathlib import Path

import torch

from lm4ve.analysis.loading import load_model
from lm4ve.runner.config import read_config
from tests.helpers.tiny_runs import PLACE, write_runs
from tests.tasks.vqa import tiny

HEADS = ('vqa', 'retrieval')


def write_models(folder: Path) -> None:
    """Put the configs and checkpoints where :func:`paths_of` says."""
    write_runs(folder, 'vit_frozen', 'vit_mlp', 'videomae', 'pointbert', 'vectornet')
    tiny.write_models(folder, *HEADS)


def paths_of(name: str) -> tuple[str, str]:
    """Return a model's config and checkpoint."""
    stem = name if name in HEADS else f'{PLACE}/{name}'
    return f'{stem}.py', f'{stem}.pth'


def loaded(name: str) -> torch.nn.Module:
    config, checkpoint = paths_of(name)
    return load_model(read_config(config), checkpoint, 'cpu')[0]
