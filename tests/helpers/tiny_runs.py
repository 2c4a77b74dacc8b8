"""Small runs of every task: configs in ``tests/data/tiny_runs``, and checkpoints made here."""

import shutil
from pathlib import Path

import torch
from mmengine.registry import MODELS, DefaultScope

from lm4ve.runner.config import read_config
from tests.helpers.tasks import ROOT

CONFIGS = ROOT / 'tests/data/tiny_runs'
#: Where :func:`write_runs` puts them, below the folder that it is given.
PLACE = 'runs'


def write_runs(folder: Path, *names: str) -> None:
    """Copy the configs to ``folder/runs`` and put a checkpoint beside each one named.

    Args:
        folder (Path): The folder.
        *names (str): Stems of configs: 'vit_frozen', 'vit_mlp', 'videomae', 'pointbert',
            'pointmae', 'vectornet'.
    """
    shutil.copytree(CONFIGS, folder / PLACE)
    for name in names:
        cfg = read_config(folder / PLACE / f'{name}.py', set_scope=False)
        if cfg.get('data_preprocessor') is not None:
            cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
        torch.manual_seed(3)
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            model = MODELS.build(cfg.model)
        for p in model.parameters():  # as large as after training, or nothing would be seen
            if p.requires_grad and p.dim() > 1:
                torch.nn.init.normal_(p, std=0.3)
        classes = [str(i) for i in range(10)]
        meta = dict(epoch=3, iter=60, dataset_meta=dict(classes=classes))
        torch.save(dict(state_dict=model.state_dict(), meta=meta), folder / PLACE / f'{name}.pth')
