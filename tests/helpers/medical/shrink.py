"""What :mod:`tests.helpers.shrink` makes small in a medical config."""

from functools import partial
from pathlib import Path

import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, DefaultScope

from lm4ve.blocks.record_text import KEY, encode_record
from lm4ve.runner.config import read_config
from tests.helpers import shrink
from tests.helpers.image.shrink import Shrinker as ImageShrinker
from tests.helpers.medical import files
from tests.helpers.tasks import FOLDERS

DIMS = [4, 6, 8, 10, 16]
VOLUME = (16, 16, 8)
#: Transform -> its smaller size.
SIZES = {
    'Resized': dict(spatial_size=VOLUME),
    'Resize': dict(scale=(32, 32)),
    'lm4ve.ZoomVolume': dict(size=VOLUME),
}
#: How configs' names begin -> a scalar that validation logs.
METRICS = {
    'cmunext': 'lesion/Dice',
    'vit3d': 'volume/Dice',
    'vit-': 'medmnist/AUC',
    'vivit': 'medmnist/AUC',
}


def metric_of(name: str) -> str:
    """Return a scalar that the validation of a config logs."""
    for start, metric in METRICS.items():
        if name.startswith(start):
            return metric
    raise AssertionError(f'teach tests/helpers/medical/shrink.py the metric of {name}')


class Shrinker(shrink.Shrinker):
    """Shrinks pictures to 32 x 32, volumes to 16 x 16 x 8, and encoders."""

    task = 'medical'
    metric = 'medmnist/AUC'

    def load(self, name, *args, **options):
        self.metric = metric_of(name)
        return super().load(name, *args, **options)

    def model(self, model: ConfigDict) -> int:
        backbone = model.backbone.get('backbone', model.backbone)
        if backbone.type == 'lm4ve.CMUNeXt':
            backbone.update(dims=DIMS, depths=[1] * 5)
            model.decode_head.in_channels = DIMS
            model.data_preprocessor.size = (32, 32)
            return DIMS[-1]
        if backbone.type == 'lm4ve.VolumeViT':
            backbone.update(
                image_size=VOLUME, patch_size=(8, 8, 4), embed_dims=8, depth=2
            )
            return 8
        width = 16
        if backbone.type == 'lm4ve.ViViT':
            backbone.update(
                embed_dims=width, depth=1, num_heads=2, head_dims=8, patch_size=14
            )
        else:
            width = ImageShrinker._backbone(backbone, False)
        model.head.in_channels = width
        return width

    def train_before(self, path: Path) -> None:
        """Write the weights that a released recipe starts from, as a converter does."""
        config = 'vit-s_llama-inner-released_retinamnist.py'
        model_cfg = read_config(FOLDERS['medical'] / config).model
        self._block(model_cfg, self.model(model_cfg))
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            model = MODELS.build(model_cfg)
        state = model.state_dict()
        # A converter knows the block's layer, but no residual around it.
        state[f'neck.{KEY}'] = encode_record({})
        torch.save(dict(state_dict=state), path)

    def data(self, loader: ConfigDict, split: str) -> None:
        loader.batch_size = 2 if split == 'train' else 1
        parts = loader.dataset.get('datasets', [loader.dataset])
        for dataset in parts:
            self._dataset(loader, dataset)

    def _dataset(self, loader: ConfigDict, dataset: ConfigDict) -> None:
        if 'flag' in dataset:
            loader.batch_size = 64
            classes = dict(retinamnist=5, fracturemnist3d=3)[dataset.flag]
            write = partial(files.write_medmnist, flag=dataset.flag, classes=classes)
            file = f'{dataset.data_root}/{dataset.flag}.npz'
            self.provide(file, lambda path: write(path.parent))
        elif dataset.type == 'lm4ve.CheckedSegDataset':
            name = dataset.ann_file.partition('_')[0]
            self.provide(dataset.data_root, partial(files.write_lesions, name=name))
        elif dataset.type == 'lm4ve.Decathlon':
            load = dataset.pipeline[0]
            write = partial(
                files.write_decathlon, channels=load.channels, classes=load.num_classes
            )
            self.provide(dataset.data_root, write)
            dataset.ratios = (0.5, 0.25, 0.25)
        else:
            dataset.count = 4
        shrink.shrink_images(dataset.pipeline)
        for transform in dataset.pipeline:
            name = transform.get('name', transform['type'])
            if name in SIZES:
                transform.update(SIZES[name])
