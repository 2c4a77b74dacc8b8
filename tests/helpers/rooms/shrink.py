"""What :mod:`tests.helpers.shrink` makes small in a config of SQA3D."""

from pathlib import Path

import numpy as np
from mmengine.config import ConfigDict

from lm4ve.tasks.rooms.datasets.scannet import CLASSES
from tests.helpers import shrink
from tests.helpers.rooms.scenes import write_sqa3d
from tests.helpers.rooms.tiny import VECTORS, VOTENET

SCANNET = 'data/scannet'
ROOMS = dict(train=1, val=1, test=1)


def write_vectors(path: Path) -> None:
    """Write vectors of a few words, as GloVe is converted."""
    vectors = np.array(list(VECTORS.values()), dtype='f4')
    np.savez(path, words=list(VECTORS), vectors=vectors)


def write_mean_sizes(path: Path) -> None:
    """Write the mean sizes of boxes, as ScanRefer has them."""
    np.savez(path, np.random.default_rng(0).uniform(0.5, 2, (len(CLASSES), 3)))


def _write_scannet(root: Path) -> None:
    """Write ScanNet's files with the questions, and the sizes of boxes beside."""
    write_sqa3d(root)
    means = root / 'meta_data/scannet_reference_means.npz'
    means.parent.mkdir()
    write_mean_sizes(means)


class Shrinker(shrink.Shrinker):
    """Shrinks scans to two rooms of sixty points, and every part's width."""

    task = 'rooms'
    metric = 'sqa3d/em@1'

    def model(self, model: ConfigDict) -> int:
        if model.text_encoder.get('checkpoint', '').startswith('package:'):
            return model.fusion.embed_dims
        self.provide(model.data_preprocessor.word_vectors, write_vectors)
        self.provide(SCANNET, _write_scannet)
        for name, value in VOTENET.items():
            if name not in ('type', 'in_channels', 'mean_sizes'):
                model.object_encoder[name] = value
        model.text_encoder.update(in_channels=5, channels=16)
        model.fusion.update(embed_dims=16, num_heads=2)
        model.pool.update(hidden_channels=9, out_channels=12)
        model.head.update(in_channels=36, hidden_channels=16)
        if model.pose_head is not None:
            model.pose_head.update(in_channels=24, hidden_channels=16)
        return 16

    def data(self, loader: ConfigDict, split: str) -> None:
        loader.batch_size = 2
        dataset = loader.dataset
        if dataset.type == 'lm4ve.Rooms':
            dataset.update(rooms=ROOMS, indices=8)
            return
        self.provide(SCANNET, _write_scannet)
        for step in dataset.pipeline:
            if step.type == 'lm4ve.SampleScenePoints':
                step.num = 40
