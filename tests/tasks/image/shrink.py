"""Make any image config small enough to run in a second or two.

What stays real: the config's structure, its hooks, samplers, pipelines and
optimizer settings, the file layout of the language model and of the data. What
shrinks: widths, depths, image sizes, numbers of samples and epochs.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
from mmengine.config import Config, ConfigDict

from lm4ve.engine.command_line import finish_config
from tests.helpers.families import write_huggingface
from tests.helpers.tasks import FOLDERS

IMAGE_SIZE = 32
# More than five: the configs report top-5.
CLASSES = tuple(f'n0{1440764 + i}' for i in range(6))
# RepeatAugSampler draws multiples of 256 samples.
TRAIN_IMAGES, VAL_IMAGES = 256, 8


class Shrinker:
    """Shrinks configs; writes stand-in models and data once.

    Args:
        folder (Path): Where the stand-ins are written.
    """

    task = 'image'

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._models: dict = {}
        self._imagenet = None

    # ------------------------------------------------------------- stand-ins
    def language_model(self, checkpoint: str) -> str:
        """Return a tiny model of the named one's family, in its file layout."""
        if checkpoint.startswith('package:'):
            return checkpoint
        name = checkpoint.rpartition('/')[2]
        if name not in self._models:
            if name.startswith('opt'):
                family = 'opt-350m' if name == 'opt-350m' else 'opt'
                layout = 'bin'
            else:
                family, layout = 'llama', 'sharded-safetensors'
            folder = self.folder / name
            write_huggingface(folder, family, layout=layout)
            self._models[name] = str(folder)
        return self._models[name]

    def imagenet(self) -> Path:
        """Return a folder in ImageNet's layout, with four classes of noise."""
        if self._imagenet is None:
            root = self.folder / 'imagenet'
            rng = np.random.default_rng(0)
            for split, count in (('train', TRAIN_IMAGES), ('val', VAL_IMAGES)):
                for i in range(count):
                    name = CLASSES[i % len(CLASSES)]
                    path = root / split / name / f'{name}_{i}.JPEG'
                    path.parent.mkdir(parents=True, exist_ok=True)
                    pixels = rng.integers(0, 255, (40, 44, 3), dtype=np.uint8)
                    cv2.imwrite(str(path), pixels)
            self._imagenet = root
        return self._imagenet

    # --------------------------------------------------------------- configs
    def load(self, name: str, work_dir: Path, epochs: int = 1) -> Config:
        """Load a config, shrunk, as the command line tools would see it."""
        cfg = Config.fromfile(FOLDERS[self.task] / name)
        cfg.work_dir = str(work_dir)
        cfg.launcher = 'none'
        cfg.load_from = None  # another experiment's checkpoint
        cfg.log_level = 'WARNING'
        self._blocks(cfg.model)
        self._model(cfg.model)
        for field in ('train', 'val', 'test'):
            self._data(cfg, field)
        self._schedule(cfg, epochs)
        cfg.visualizer.vis_backends = []
        args = argparse.Namespace(no_pin_memory=True, cfg_options=None)
        return finish_config(cfg, args)

    def _blocks(self, node) -> None:
        """Point every block at its stand-in; a two-layer LLaMA has no layer 15."""
        if isinstance(node, dict):
            if node.get('type') == 'LLMBlock':
                node['checkpoint'] = self.language_model(node['checkpoint'])
                node['layers'] = tuple(i if i < 0 else -1 for i in node['layers'])
            if node.get('type') == 'MLPBlock':
                node['embed_dims'] = 32
            for value in node.values():
                self._blocks(value)
        elif isinstance(node, (list, tuple)):
            for value in node:
                self._blocks(value)

    def _model(self, model: ConfigDict) -> None:
        backbone = model.backbone
        inserted = backbone.type == 'LLMBlockInsert'
        width = self._backbone(backbone.backbone if inserted else backbone, inserted)
        if inserted:
            backbone.neck.in_channels = width
        necks = model.get('neck')
        for neck in necks if isinstance(necks, list) else [necks]:
            if neck is not None and neck['type'] == 'LLMBlockNeck':
                neck.in_channels = width
        model.head.in_channels = width
        if model.head.num_classes == 1000:
            model.head.num_classes = len(CLASSES)

    @staticmethod
    def _backbone(backbone: ConfigDict, inserted: bool) -> int:
        """Shrink an encoder; return its output width."""
        kind = backbone.type.rpartition('.')[2]
        if kind == 'VisionTransformer':
            if isinstance(backbone.arch, str):
                backbone.img_size = IMAGE_SIZE
                backbone.arch = dict(
                    embed_dims=16,
                    # `layers.5` must stay where it is.
                    num_layers=7 if inserted else 2,
                    num_heads=2,
                    feedforward_channels=32,
                )
            return backbone.arch['embed_dims']
        if kind == 'ResNet':
            backbone.update(depth=18, base_channels=4, stem_channels=4)
            return 32
        if kind == 'SwinTransformer':
            backbone.update(
                arch=dict(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2]),
                img_size=IMAGE_SIZE,
                window_size=1,
            )
            return 64
        if kind == 'RawConvNeXt':
            backbone.arch = dict(depths=[1, 1, 1, 1], channels=[4, 8, 12, 16])
            return 16
        raise AssertionError(f'teach tests/tasks/image/shrink.py to shrink {kind}')

    def _data(self, cfg: Config, field: str) -> None:
        loader = cfg.get(f'{field}_dataloader')
        if loader is None:
            return
        loader.num_workers = 0
        loader.pop('persistent_workers', None)
        dataset = loader.dataset
        if dataset.type in ('lm4ve.DigitsDataset', 'lm4ve.TexturedDigits'):
            dataset.indices = 16
            if 'variants' in dataset:
                dataset.variants = 1
            loader.batch_size = 8
            return
        loader.batch_size = 64 if field == 'train' else 4
        dataset.data_root = str(self.imagenet())
        dataset.metainfo = dict(classes=CLASSES)
        for transform in dataset.pipeline:
            for key in ('scale', 'crop_size'):
                if transform.get(key) == 224:
                    transform[key] = IMAGE_SIZE
                elif transform.get(key) == 256:
                    transform[key] = IMAGE_SIZE + 4
        if cfg.get('data_preprocessor', {}).get('num_classes') == 1000:
            cfg.data_preprocessor.num_classes = len(CLASSES)

    @staticmethod
    def _schedule(cfg: Config, epochs: int) -> None:
        """Train ``epochs`` epochs; warm-up must end before training does."""
        cfg.train_cfg.max_epochs = epochs
        cfg.train_cfg.val_interval = 1
        cfg.default_hooks.checkpoint.interval = 1
        schedulers = cfg.param_scheduler
        for s in schedulers if isinstance(schedulers, list) else [schedulers]:
            if 'total_steps' in s:
                s.total_steps = epochs
            if s.get('begin', 0) > 0:
                s.begin = 0
            if s.get('end') is not None:
                s.end = epochs
            if s.get('T_max') is not None:
                s.T_max = epochs
