"""Make any config small enough to train in a second or two.

What stays real: the config's structure, its hooks, samplers, pipelines, losses and
optimizer settings, the file layout of the language model and of the data. What
shrinks: widths, depths, sizes, numbers of samples and epochs.

The steps here are the same for every task. Each adds its own in
``tests/tasks/<task>/shrink.py``, a module with a class ``Shrinker``.
"""

import argparse
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest
from mmengine.config import Config

from lm4ve.errors import CheckpointError
from lm4ve.llm.sources import locate_packaged
from lm4ve.runner.command_line import finish_config
from tests.helpers.families import write_huggingface
from tests.helpers.tasks import FOLDERS

#: Smaller sizes of images, by the sizes that the configs have.
IMAGE_SIZES = {224: 32, 256: 36}
#: The width of the tiny language models.
LLM_WIDTH = 32


class Shrinker:
    """Shrinks the configs of one task; writes each stand-in once.

    A task adds ``model(model)``, which shrinks the model except for its LLM block and returns
    the tokens' width, and ``data(loader, split)``, which points a dataloader ('train', 'val' or
    'test') at few and small samples.

    Args:
        folder (Path): Where the stand-ins for models and data are written.
    """

    #: Name of the task, and a scalar that its validation logs.
    task: ClassVar[str]
    metric: ClassVar[str]

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, name: str, work_dir: Path, epochs: int = 1, launcher: str = 'none') -> Config:
        """Load a config, shrunk, as the command line tools would see it.

        It is inherited as other projects inherit it, by ``lm4ve::``.
        """
        theirs = self.folder / 'theirs.py'
        theirs.write_text(f"_base_ = 'lm4ve::{FOLDERS[self.task].name}/{name}'\n")
        cfg = Config.fromfile(theirs)
        # `load_from` names another experiment's checkpoint.
        cfg.update(work_dir=str(work_dir), launcher=launcher, load_from=None, log_level='WARNING')
        cfg.visualizer.vis_backends = []
        self._block(cfg.model, self.model(cfg.model))
        for split in ('train', 'val', 'test'):
            loader = cfg.get(f'{split}_dataloader')
            if loader is not None:
                loader.num_workers = 0
                loader.pop('persistent_workers', None)
                self.data(loader, split)
        self._schedule(cfg, epochs)
        return finish_config(cfg, argparse.Namespace(no_pin_memory=True, cfg_options=None))

    def written(self, name: str, write: Callable[[Path], object]) -> str:
        """Return a path below the folder; ``write`` it unless it is there."""
        path = self.folder / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path)
        return str(path)

    def language_model(self, checkpoint: str) -> str:
        """Return a tiny model of the named one's family, in its file layout.

        Real files in packages stay as they are.
        """
        if checkpoint.startswith('package:'):
            try:
                locate_packaged(checkpoint.partition(':')[2])
            except CheckpointError as e:
                pytest.skip(str(e))
            return checkpoint
        name = checkpoint.rpartition('/')[2]
        family, layout = 'llama', 'sharded-safetensors'
        if name.startswith('opt'):
            family, layout = 'opt-350m' if name == 'opt-350m' else 'opt', 'bin'
        return self.written(name, lambda f: write_huggingface(f, family, layout=layout))

    def _block(self, node: object, width: int) -> None:
        """Give every neck its width and its tiny language model, which has two layers."""
        if isinstance(node, dict):
            kind = node.get('type')
            if kind == 'LLMBlockNeck':
                node['in_channels'] = width
            elif kind == 'LLMBlock':
                node['checkpoint'] = self.language_model(node['checkpoint'])
                node['layers'] = tuple(i if i < 0 else -1 for i in node['layers'])
            elif kind == 'MLPBlock':
                node['embed_dims'] = LLM_WIDTH
            node = list(node.values())
        if isinstance(node, (list, tuple)):
            for value in node:
                self._block(value, width)

    @staticmethod
    def _schedule(cfg: Config, epochs: int) -> None:
        """Train ``epochs`` epochs; a resumed run follows the schedule that it began."""
        cfg.train_cfg.update(max_epochs=epochs, val_interval=1)
        cfg.default_hooks.checkpoint.interval = 1
        schedulers = cfg.param_scheduler
        for s in schedulers if isinstance(schedulers, list) else [schedulers]:
            last = max(epochs, 2)
            s.update({k: last for k in ('total_steps', 'T_max', 'end') if s.get(k) is not None})
            if s.get('begin', 0) > 0:  # warm-up must end before training does
                s.begin = 0


def shrinker_of(task: str, folder: Path) -> Shrinker:
    """Return the shrinker of a task, which writes its stand-ins to a folder."""
    return importlib.import_module(f'tests.tasks.{task}.shrink').Shrinker(folder)


def shrink_images(pipeline: list) -> None:
    """Let the transforms of a pipeline make small images."""
    for transform in pipeline:
        for key in ('scale', 'crop_size', 'input_size'):
            if key in transform:
                transform[key] = _smaller(transform[key])


def _smaller(size):
    if isinstance(size, (list, tuple)):
        return type(size)(_smaller(s) for s in size)
    return IMAGE_SIZES.get(size, size)
