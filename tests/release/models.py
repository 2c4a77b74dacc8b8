"""A small model of every task as a config and a checkpoint."""

from pathlib import Path

import torch
from mmengine.registry import MODELS

from lm4ve.analysis.loading import load_model
from lm4ve.runner.config import read_config
from tests.helpers.tiny_runs import PLACE, enlarged, write_runs
from tests.tasks.vqa import tiny

HEADS = dict(
    vqa=dict(type='lm4ve.VQAHead', vocabulary=tiny.ANSWERS, in_channels=32),
    retrieval=dict(type='lm4ve.RetrievalHead', in_channels=32),
)


def write_models(folder: Path) -> None:
    """Put the configs and checkpoints where :func:`paths_of` says."""
    write_runs(folder, 'vit_frozen', 'vit_mlp', 'videomae', 'pointbert', 'vectornet')
    tokenizer = tiny.write_tokenizer(folder / 'tokenizer')
    for name, head in HEADS.items():
        config = tiny.write_config(folder / f'{name}.py', tokenizer, head=head)
        torch.manual_seed(3)
        model = enlarged(MODELS.build(read_config(config).model))
        torch.save(dict(state_dict=model.state_dict()), folder / f'{name}.pth')


def paths_of(name: str) -> tuple[str, str]:
    """Return a model's config and checkpoint."""
    stem = name if name in HEADS else f'{PLACE}/{name}'
    return f'{stem}.py', f'{stem}.pth'


def loaded(name: str) -> torch.nn.Module:
    config, checkpoint = paths_of(name)
    return load_model(read_config(config), checkpoint, 'cpu')[0]
