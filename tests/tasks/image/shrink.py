"""What :mod:`tests.helpers.shrink` makes small in an image config."""

from pathlib import Path

from mmengine.config import ConfigDict

from tests.helpers import shrink
from tests.tasks.image.images import fill

# More than five: the configs report top-5.
CLASSES = tuple(f'n0{1440764 + i}' for i in range(6))
# Of each; RepeatAugSampler draws multiples of 256 samples.
IMAGES = dict(train=43, val=2)


class Shrinker(shrink.Shrinker):
    """Shrinks ImageNet to six classes of noise and encoders to two layers."""

    task = 'image'
    metric = 'accuracy/top1'

    def model(self, model: ConfigDict) -> int:
        backbone = model.backbone
        inserted = backbone.type == 'LLMBlockInsert'
        width = self._backbone(backbone.backbone if inserted else backbone, inserted)
        if model.type == 'MAE':
            sizes = dict(embed_dim=width, decoder_embed_dim=8, decoder_depth=1)
            model.neck.update(num_patches=4, decoder_num_heads=2, **sizes)
            return width
        model.head.in_channels = width
        if model.head.num_classes == 1000:
            model.head.num_classes = len(CLASSES)
        return width

    @staticmethod
    def _backbone(backbone: ConfigDict, inserted: bool) -> int:
        """Shrink an encoder; return its output width."""
        kind = backbone.type.rpartition('.')[2]
        if kind in ('VisionTransformer', 'MAEViT'):
            if isinstance(backbone.arch, str):
                # `layers.5` must stay where it is, or `layers.11` of a base model.
                depth = 12 if backbone.arch.startswith('b') else 7
                backbone.img_size = 32
                backbone.arch = dict(embed_dims=16, num_heads=2, feedforward_channels=32)
                backbone.arch.num_layers = depth if inserted else 2
            return backbone.arch['embed_dims']
        if kind == 'ResNet':
            backbone.update(depth=18, base_channels=4, stem_channels=4)
            return 32
        if kind == 'SwinTransformer':
            arch = dict(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2])
            backbone.update(arch=arch, img_size=32, window_size=1)
            return 64
        if kind == 'RawConvNeXt':
            backbone.arch = dict(depths=[1, 1, 1, 1], channels=[4, 8, 12, 16])
            return 16
        raise AssertionError(f'teach tests/tasks/image/shrink.py to shrink {kind}')

    def data(self, loader: ConfigDict, split: str) -> None:
        dataset = loader.dataset
        if dataset.type in ('lm4ve.DigitsDataset', 'lm4ve.TexturedDigits'):
            dataset.indices = 16
            if 'variants' in dataset:
                dataset.variants = 1
            loader.batch_size = 8
            return
        loader.batch_size = 64 if split == 'train' else 4
        root = self.written('imagenet', _write_imagenet)
        dataset.update(data_root=root, metainfo=dict(classes=CLASSES))
        shrink.shrink_images(dataset.pipeline)

    def load(self, *args, **options):
        cfg = super().load(*args, **options)
        if cfg.get('data_preprocessor', {}).get('num_classes') == 1000:
            cfg.data_preprocessor.num_classes = len(CLASSES)
        return cfg


def _write_imagenet(root: Path) -> None:
    """Write a folder in ImageNet's layout."""
    for split, count in IMAGES.items():
        fill(root / split, CLASSES, count)
