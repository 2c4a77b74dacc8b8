"""Make any shipped config small enough to train in a second or two.

Only what :mod:`tests.helpers.replaced` lists is replaced: the sizes go down by
arguments, and the hub, the addresses and the files that a config names hold tiny models
and data of the real formats. The config keeps every class, hub id, address and path, so
that the code under test goes all the way that it goes for a user; each small config is
compared with the whole one.

The steps here are the same for every task. Each adds its own in
``tests/helpers/<task>/shrink.py``, a module with a class ``Shrinker``.
"""

import argparse
import contextlib
import copy
import importlib
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner.checkpoint import get_torchvision_models

from lm4ve.errors import CheckpointError
from lm4ve.llm.sources import PACKAGED_MODELS, locate_packaged
from lm4ve.runner.command_line import build_runner, finish_config
from lm4ve.runner.config import read_config
from tests.helpers import hub
from tests.helpers.families import write_huggingface
from tests.helpers.replaced import differences

#: Smaller sizes of images, by the sizes that the configs have.
IMAGE_SIZES = {160: 64, 182: 72, 224: 32, 256: 36}
#: The width of the tiny language models.
LLM_WIDTH = 32
#: The name of a language model, without its organization -> its family and number of
#: layers.
LLMS = {
    'llama-7b': ('llama', 32),
    'llama-3.1-8b': ('llama-gqa', 32),
    'llama-3.2-1b': ('llama-gqa', 16),
    'openpangu-embedded-1b': ('PanguEmbedded', 26),
    'deepseek-r1-distill-qwen-1.5b': ('qwen2', 28),
    'dyck': ('bert', 2),
    'opt-125m': ('opt', 12),
    'opt-350m': ('opt-350m', 24),
    'opt-1.3b': ('opt', 24),
    'opt-2.7b': ('opt', 32),
    'opt-6.7b': ('opt', 32),
}


class Shrinker:
    """Shrinks the configs of one task; writes each tiny file once.

    A task adds ``model(model)``, which shrinks the model except for its LLM block and
    returns the tokens' width, and ``data(loader, split)``, which makes a dataloader
    ('train', 'val' or 'test') read few and small samples.

    Args:
        folder (Path): Where the tiny files are written, at the paths that configs name.
            Code under test has to run in it: :meth:`enter`.

    Attributes:
        weights (list[Path]): The tiny weights that the last loaded config names.
    """

    #: Name of the task, and a scalar that its validation logs.
    task: ClassVar[str]
    metric: ClassVar[str]

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.weights: list[Path] = []

    def enter(self, patch: pytest.MonkeyPatch) -> None:
        """Work in the folder, and keep the caches of downloads in it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        patch.chdir(self.folder)
        hub.use_cache(patch, self.folder / 'hub')
        patch.setenv('TORCH_HOME', str(self.folder / 'torch'))
        patch.setenv('LM4VE_CACHE', str(self.folder / 'lm4ve'))

    def load(
        self,
        name: str,
        work_dir: Path | str,
        epochs: int = 1,
        launcher: str = 'none',
        options: dict[str, Any] | None = None,
    ) -> Config:
        """Load a config, shrunk, as the command line tools would see it.

        It is inherited as other projects inherit it, by ``lm4ve::``. More than
        :mod:`tests.helpers.replaced` lists is not replaced, or this fails.

        Args:
            name (str): The file, below the task's folder.
            work_dir (Path | str): Of the run.
            epochs (int): How long it trains.
            launcher (str): Of processes.
            options (dict, optional): Overrides, as ``--cfg-options`` gives them.
        """
        folder = 'lm4ve' if self.task == 'image' else self.task
        text = f"_base_ = 'lm4ve::{folder}/{name}'"
        return self.load_text(text, work_dir, epochs, launcher, options)

    def load_text(
        self,
        text: str,
        work_dir: Path | str,
        epochs: int = 1,
        launcher: str = 'none',
        options: dict[str, Any] | None = None,
    ) -> Config:
        """Load a config of this text, shrunk; see :meth:`load`."""
        theirs = self.folder / 'theirs.py'
        theirs.write_text(f'{text}\n')
        cfg = read_config(theirs, options, set_scope=False)
        _count_epochs(cfg)
        whole = copy.deepcopy(cfg._cfg_dict.to_dict())
        cfg.update(work_dir=str(work_dir), launcher=launcher, log_level='WARNING')
        self.shrink(cfg, epochs)
        found = [*differences(whole, cfg._cfg_dict.to_dict())]
        assert not found, f'{text}: more than sizes was replaced: {found}'
        return finish_config(
            cfg, argparse.Namespace(no_pin_memory=True, cfg_options=None)
        )

    def shrink(self, cfg: Config, epochs: int = 1) -> None:
        """Make a config small, and write the files that it names."""
        self.weights = []
        if isinstance(cfg.get('load_from'), str):
            self.weights.append(self.provide(cfg.load_from, self.train_before))
        self._block(cfg.model, self.model(cfg.model))
        for split in ('train', 'val', 'test'):
            loader = cfg.get(f'{split}_dataloader')
            if loader is not None:
                loader.num_workers = 0
                loader.pop('persistent_workers', None)
                self.data(loader, split)
        self._schedule(cfg, epochs)

    def provide(self, name: str, write: Callable[[Path], object]) -> Path:
        """Return the path of what a config names; ``write`` it unless it is there.

        Args:
            name (str): A path, relative to the working folder.
            write (callable): Writes a file, or into a folder, of that path.
        """
        path = self.folder / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with random_numbers_of(name):
                write(path)
        return path

    def answer(self, address: str, write: Callable[[Path], object]) -> Path:
        """Answer an address of weights, ``https://...`` or ``torchvision://...``.

        The answer lies in the cache where torch.hub keeps what it has downloaded.
        """
        scheme, _, rest = address.partition('://')
        url = get_torchvision_models()[rest] if scheme == 'torchvision' else address
        filename = Path(urlsplit(url).path).name
        path = self.provide(f'torch/hub/checkpoints/{filename}', write)
        self.weights.append(path)
        return path

    def repository(self, name: str, write: Callable[[Path], object]) -> Path:
        """Answer a hub id with a repository."""
        cache = self.folder / 'hub'
        folder = cache / f'models--{name.replace("/", "--")}' / 'snapshots' / hub.COMMIT
        if folder.exists():
            return folder
        with random_numbers_of(name):
            return hub.add_repository(cache, name, write)

    def train_before(self, path: Path) -> None:
        """Write ``work_dirs/<name of a config>/epoch_N.pth`` by training that config."""
        before = type(self)(self.folder)
        work_dir = path.with_name('before')
        build_runner(before.load(f'{path.parent.name}.py', work_dir)).train()
        shutil.copy(work_dir / 'epoch_1.pth', path)

    def language_model(self, checkpoint: str) -> None:
        """Write a tiny model of the named one's family and depth, where its name says.

        Real files in packages stay as they are.
        """
        if checkpoint.startswith('package:'):
            require_package(checkpoint, PACKAGED_MODELS)
            return
        family, depth = LLMS[Path(checkpoint).name]
        layout = 'bin' if family.startswith('opt') else 'sharded-safetensors'

        def write(folder: Path) -> None:
            write_huggingface(folder, family, layout, num_hidden_layers=depth)

        if checkpoint.startswith(('data/', 'work_dirs/')):
            self.provide(checkpoint, write)
        else:
            self.repository(checkpoint, write)

    def _block(self, node: object, width: int) -> None:
        """Give every neck its width, and write the language model that its block names."""
        if isinstance(node, dict):
            kind = node.get('type')
            if kind == 'LLMBlockNeck':
                node['in_channels'] = width
            elif kind == 'LLMBlock':
                if node.get('checkpoint') is not None:
                    self.language_model(node['checkpoint'])
                if node.get('dtype') == 'auto':
                    node['dtype'] = 'float32'
            elif kind == 'MLPBlock':
                node['embed_dims'] = LLM_WIDTH
            node = list(node.values())
        if isinstance(node, (list, tuple)):
            for value in node:
                self._block(value, width)

    @staticmethod
    def _schedule(cfg: Config, epochs: int) -> None:
        """Train ``epochs`` epochs; a resumed run follows the schedule that it began."""
        if cfg.get('train_cfg') is None:
            return
        cfg.train_cfg.update(max_epochs=epochs, val_interval=1)
        cfg.default_hooks.checkpoint.interval = 1
        schedulers = cfg.param_scheduler
        for s in schedulers if isinstance(schedulers, list) else [schedulers]:
            last = max(epochs, 2)
            s.update(
                {
                    k: last
                    for k in ('total_steps', 'T_max', 'end')
                    if s.get(k) is not None
                }
            )
            if s.get('begin', 0) > 0:  # warm-up must end before training does
                s.begin = 0


def _count_epochs(cfg: Config) -> None:
    """Let a training of ours that counts iterations count epochs, whose number can be small."""
    loop = cfg.get('train_cfg') or {}
    if loop.get('by_epoch', True):
        return
    loop.pop('max_iters')
    loop.by_epoch = True
    cfg.log_processor.by_epoch = True
    cfg.default_hooks.checkpoint.by_epoch = True


def require_package(name: str, models: Mapping[str, tuple[str, str, str]]) -> None:
    """Skip the test where the package of ``package:<name>`` is not installed."""
    try:
        locate_packaged(name.removeprefix('package:'), models)
    except CheckpointError as e:
        pytest.skip(str(e))


@contextlib.contextmanager
def random_numbers_of(name: str) -> Iterator[None]:
    """Seed torch and NumPy by the name of a file, and restore their states afterwards.

    So a file's content follows from its name, whichever config needs it first.
    """
    torch_state = torch.get_rng_state()
    numpy_state = np.random.get_state()
    seed = zlib.crc32(name.encode())
    torch.manual_seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(torch_state)
        np.random.set_state(numpy_state)


def shrinker_of(task: str, folder: Path) -> Shrinker:
    """Return the shrinker of a task, which writes its tiny files to a folder."""
    return importlib.import_module(f'tests.helpers.{task}.shrink').Shrinker(folder)


def shrink_images(pipeline: list) -> None:
    """Let the transforms of a pipeline make small images."""
    for transform in pipeline:
        for key in ('scale', 'crop_size', 'input_size', 'size'):
            if key in transform:
                transform[key] = _smaller(transform[key])


def _smaller(size: Any) -> Any:
    if isinstance(size, (list, tuple)):
        return type(size)(_smaller(s) for s in size)
    return IMAGE_SIZES.get(size, size)
