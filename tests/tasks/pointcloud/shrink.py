"""Make any point-cloud config small enough to run in a second or two.

What stays real: the config's structure, its hooks, pipelines and optimizer
settings, the layout of the files. What shrinks: widths, depths, clouds, epochs.
"""

import argparse
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS

from lm4ve.engine.command_line import finish_config
from tests.helpers.families import write_huggingface
from tests.helpers.tasks import FOLDERS
from tests.tasks.pointcloud.clouds import (
    write_modelnet40_meshes,
    write_modelnet40_text,
    write_scanobjectnn,
)

#: Of every dataset, whatever the config asks for; draws take fewer.
POINTS, DRAWN = 64, 48


class Shrinker:
    """Shrinks configs; writes stand-in models and data once.

    Args:
        folder (Path): Where the stand-ins are written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._written: dict = {}

    def _once(self, name: str, write) -> str:
        if name not in self._written:
            write(self.folder / name)
            self._written[name] = str(self.folder / name)
        return self._written[name]

    def load(self, name: str, work_dir: Path, epochs: int = 1) -> Config:
        """Load a config, shrunk, as the command line tools would see it."""
        cfg = Config.fromfile(FOLDERS['pointcloud'] / name)
        cfg.update(work_dir=str(work_dir), launcher='none', log_level='WARNING')
        cfg.visualizer.vis_backends = []
        self._model(cfg.model)
        for field in ('train', 'val', 'test'):
            self._data(cfg[f'{field}_dataloader'], name)
        self._points(cfg.tta_pipeline)
        cfg.train_cfg.update(max_epochs=epochs, val_interval=1)
        cfg.default_hooks.checkpoint.interval = 1
        schedulers = cfg.param_scheduler
        for s in schedulers if isinstance(schedulers, list) else [schedulers]:
            s.update({k: epochs for k in ('total_steps', 'T_max', 'end') if k in s})
            if s.get('begin', 0) > 0:
                s.begin = 0
        args = argparse.Namespace(no_pin_memory=True, cfg_options=None)
        return finish_config(cfg, args)

    def _model(self, model: ConfigDict) -> None:
        model.backbone.update(
            embed_dims=12,
            depth=2,
            num_heads=2,
            num_groups=6,
            group_size=5,
            encoder_channels=(4, 6, 8),
        )
        if model.backbone.type == 'lm4ve.PointBERT':
            model.backbone.encoder_dims = 8
        model.head.in_channels = 12
        if model.neck is not None:
            model.neck.in_channels = 12
            block = model.neck.block
            if block.type == 'MLPBlock':
                block.embed_dims = 32
            elif not block.checkpoint.startswith('package:'):
                block.checkpoint = self._once(
                    'llama-7b',
                    lambda f: write_huggingface(f, 'llama', layout='sharded-safetensors'),
                )
        if model.get('pretrained'):
            model.pretrained = self._once(
                Path(model.pretrained).name, lambda path: self._pretrained(model, path)
            )

    @staticmethod
    def _pretrained(model: ConfigDict, path: Path) -> None:
        cfg = dict(model, neck=None, pretrained=None)
        cfg['backbone'] = dict(model.backbone, final_norm=True)
        torch.save(dict(state_dict=MODELS.build(cfg).state_dict()), path)

    def _data(self, loader: ConfigDict, name: str) -> None:
        loader.num_workers = 0
        loader.pop('persistent_workers', None)
        loader.batch_size = 4
        dataset = loader.dataset
        self._points(dataset.pipeline)
        if dataset.type == 'lm4ve.ScanObjectNN':
            dataset.data_root = self._once('scanobjectnn', write_scanobjectnn)
        elif dataset.type == 'lm4ve.ModelNet40':
            # Both layouts: text where 1,024 points are asked for, else meshes.
            write, layout = (
                (write_modelnet40_text, 'text')
                if '1k' in name
                else (write_modelnet40_meshes, 'meshes')
            )
            dataset.data_root = self._once(f'modelnet40-{layout}', write)
            dataset.update(num_points=POINTS, num_samples=100)
            loader.batch_size = 2
        else:
            dataset.update(
                per_class=2, num_points=POINTS, cache_dir=str(self.folder / 'primitives')
            )

    def _points(self, pipeline: list) -> None:
        for transform in pipeline:
            if transform['type'] == 'lm4ve.SamplePoints':
                transform['num'] = POINTS if transform['num'] == 1200 else DRAWN
            if 'transforms' in transform:
                self._points(transform['transforms'])
