"""Make any motion config small enough to run in a second or two.

What stays real: the config's structure, its hooks, samplers, pipelines, losses and
optimizer settings, the files of the data and of the language model. What shrinks:
widths, numbers of scenes and epochs.
"""

import argparse
from pathlib import Path

from mmengine.config import Config

from lm4ve.engine.command_line import finish_config
from lm4ve.tasks.motion import Argoverse1Reader, Argoverse2Reader, SceneCache, preprocess_split
from lm4ve.tasks.motion.models.regions import write_regions
from tests.helpers.families import write_huggingface
from tests.helpers.tasks import FOLDERS


class MotionShrinker:
    """Shrinks configs; writes caches and a stand-in language model once.

    Args:
        folder (Path): For what it writes.
        argoverse1, argoverse2 (Path): Data in the real layouts.
    """

    def __init__(self, folder: Path, argoverse1: Path, argoverse2: Path) -> None:
        self.folder = folder
        self.roots = dict(argoverse1=argoverse1, argoverse2=argoverse2)
        self._llama = None

    def language_model(self, checkpoint: str) -> str:
        """Return a tiny LLaMA (real files in packages stay as they are)."""
        if checkpoint.startswith('package:'):
            return checkpoint
        if self._llama is None:
            self._llama = str(
                write_huggingface(self.folder / 'llama', 'llama', layout='sharded-safetensors')
            )
        return self._llama

    def cache(self, name: str, split: str) -> str:
        """Preprocess a split by its real reader; return the cache's path."""
        root, out = self.roots[name], self.folder / f'{name}-{split}.cache'
        if name == 'argoverse1':
            reader = Argoverse1Reader(root / split / 'data', root / 'map_files')
        else:
            reader = Argoverse2Reader(root / split)
        preprocess_split(reader, out, quiet=True)
        return str(out)

    def regions(self) -> str:
        out = self.folder / 'regions.json'
        if not out.is_file():
            scenes = SceneCache(self.cache('argoverse1', 'train'))
            # A point for every known step: eight ends are too few for hulls.
            ends = [p for s in scenes for p in s.to_local(s.positions[s.focal, s.history_steps :])]
            import numpy as np

            write_regions(out, np.array(ends), 6)
        return str(out)

    def load(self, name: str, work_dir: Path, epochs: int = 1) -> Config:
        """Load a config, shrunk, as the command line tools would see it."""
        cfg = Config.fromfile(FOLDERS['motion'] / name)
        cfg.work_dir, cfg.launcher = str(work_dir), 'none'
        cfg.log_level = 'WARNING'
        self._model(cfg.model)
        for split in ('train', 'val', 'test'):
            loader = cfg[f'{split}_dataloader']
            loader.num_workers, loader.batch_size = 0, 4
            data = loader.dataset
            # A test set has no truth; `test` validates, as in the configs.
            files = 'train' if split == 'train' else 'val'
            if data.type == 'lm4ve.TrafficDataset':
                data.update(root=str(self.folder / 'traffic'), counts=dict(train=6, val=4))
            else:
                data.cache = self.cache(Path(data.cache).parent.name, files)
        cfg.train_cfg.max_epochs = epochs
        cfg.train_cfg.val_interval = 1
        cfg.default_hooks.checkpoint.interval = 1
        schedule = cfg.param_scheduler
        for key in ('T_max', 'total_steps'):
            if key in schedule:
                # Resumed runs must follow the schedule they began.
                schedule[key] = 2
        cfg.visualizer.vis_backends = []
        args = argparse.Namespace(no_pin_memory=True, cfg_options=None)
        return finish_config(cfg, args)

    def _model(self, model) -> None:
        kind = model.encoder.type.rpartition('.')[2]
        if kind == 'VectorNet':
            model.encoder.channels = (4, 8)
            model.decoder.in_channels = width = 16
        else:
            width = 16
            model.encoder.update(channels=width, feedforward=24)
            model.decoder.update(channels=width, feedforward=24)
            if model.decoder.get('regions'):
                model.decoder.regions = self.regions()
        if model.get('neck'):
            model.neck.in_channels = width
            block = model.neck.block
            if block.type == 'LLMBlock':
                block.checkpoint = self.language_model(block.checkpoint)
            else:
                block.embed_dims = 32
