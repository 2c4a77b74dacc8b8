"""What :mod:`tests.helpers.shrink` makes small in a point-cloud config."""

import shutil
from functools import partial
from pathlib import Path

import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS

from tests.helpers import shrink
from tests.helpers.pointcloud import clouds

#: Points of a cloud in every data set; draws take fewer.
POINTS, DRAWN = 64, 48


class Shrinker(shrink.Shrinker):
    """Shrinks clouds to 64 points and encoders to two layers over six groups."""

    task = 'pointcloud'
    metric = 'accuracy/overall'

    def load(self, *args, **options):
        cfg = super().load(*args, **options)
        self._points(cfg.tta_pipeline)
        return cfg

    def model(self, model: ConfigDict) -> int:
        sizes = dict(embed_dims=12, depth=2, num_heads=2, num_groups=6, group_size=5)
        model.backbone.update(sizes, encoder_channels=(4, 6, 8))
        if model.backbone.type == 'lm4ve.PointBERT':
            model.backbone.encoder_dims = 8
        model.head.in_channels = 12
        if model.get('checkpoint'):
            write = partial(_write_pretrained, model)
            self.weights.append(self.provide(model.checkpoint, write))
        return 12

    def data(self, loader: ConfigDict, split: str) -> None:
        loader.batch_size = 4
        dataset = loader.dataset
        if dataset.type == 'lm4ve.ScanObjectNN':
            self.provide(dataset.data_root, clouds.write_scanobjectnn)
        elif dataset.type == 'lm4ve.ModelNet40':
            # Both layouts: text where 1,024 points are asked for, else meshes.
            text = any(t.get('num') == 1024 for t in dataset.pipeline)
            write = (
                clouds.write_modelnet40_text if text else clouds.write_modelnet40_meshes
            )
            root = self.folder / dataset.data_root
            # The text of a config before this one would hide the meshes.
            shutil.rmtree(root, ignore_errors=True)
            write(root)
            dataset.update(num_points=POINTS, num_samples=100)
            loader.batch_size = 2
        else:
            dataset.update(per_class=2, num_points=POINTS)
        self._points(dataset.pipeline)

    def _points(self, pipeline: list) -> None:
        for transform in pipeline:
            if transform['type'] == 'lm4ve.SamplePoints':
                transform['num'] = POINTS if transform['num'] == 1200 else DRAWN
            if 'transforms' in transform:
                self._points(transform['transforms'])


def _write_pretrained(model: ConfigDict, path: Path) -> None:
    cfg = dict(model, neck=None, checkpoint=None)
    cfg['backbone'] = dict(model.backbone, final_norm=True)
    torch.save(dict(state_dict=MODELS.build(cfg).state_dict()), path)
