"""What :mod:`tests.helpers.shrink` makes small in a motion config."""

from pathlib import Path

import numpy as np
from mmengine.config import ConfigDict

from lm4ve.tasks.motion import (
    Argoverse1Reader,
    Argoverse2Reader,
    SceneCache,
    preprocess_split,
)
from lm4ve.tasks.motion.datasets.traffic_files import write_argoverse1
from lm4ve.tasks.motion.region_clusters import write_regions
from tests.helpers import shrink
from tests.helpers.motion.argoverse2_files import write_argoverse2

SCENES = dict(train=8, val=5)
WIDTH = 16


class Shrinker(shrink.Shrinker):
    """Shrinks data sets to a few scenes in their real layouts and all widths to 16."""

    task = 'motion'
    metric = 'motion/minFDE@6'

    def model(self, model: ConfigDict) -> int:
        if model.encoder.type == 'lm4ve.VectorNet':
            model.encoder.channels = (4, 8)
            model.decoder.in_channels = WIDTH
            return WIDTH
        if model.encoder.type == 'lm4ve.RealMotion':
            model.encoder.update(channels=WIDTH, num_layers=1, num_heads=2)
            model.decoder.in_channels = WIDTH
            return WIDTH
        model.encoder.update(channels=WIDTH, feedforward=24)
        model.decoder.update(channels=WIDTH, feedforward=24)
        if model.decoder.get('regions'):
            self.provide(model.decoder.regions, self._write_regions)
        return WIDTH

    def data(self, loader: ConfigDict, split: str) -> None:
        loader.batch_size = 4
        dataset = loader.dataset
        if dataset.type == 'lm4ve.TrafficDataset':
            dataset.counts = dict(train=6, val=4)
        else:
            self.provide(dataset.cache, self._preprocess)

    def _preprocess(self, cache: Path) -> None:
        """Preprocess a split by its real reader."""
        name = cache.parent.name
        split = cache.stem.removesuffix('_detailed')
        write = dict(argoverse1=write_argoverse1, argoverse2=write_argoverse2)[name]
        root = self.provide(f'raw/{name}', lambda path: write(path, SCENES))
        reader = Argoverse2Reader(root / split)
        if cache.stem.endswith('_detailed'):
            reader = Argoverse2Reader(root / split, map_range=213.0, detailed=True)
        if name == 'argoverse1':
            reader = Argoverse1Reader(root / split / 'data', root / 'map_files')
        preprocess_split(reader, cache)

    def _write_regions(self, out: Path) -> None:
        cache = self.provide('data/argoverse1/train.cache', self._preprocess)
        scenes = SceneCache(str(cache))
        # A point for every known step: eight ends are too few for hulls.
        ends = [
            p
            for s in scenes
            for p in s.to_local(s.positions[s.focal, s.history_steps :])
        ]
        write_regions(out, np.array(ends), 6)
