"""What :mod:`tests.helpers.shrink` makes small in an image config."""

from functools import partial
from pathlib import Path

from mmengine.config import ConfigDict

from lm4ve.convert.packaged_encoders import PACKAGED_ENCODERS
from lm4ve.tasks.image.datasets.synsets import class_indices
from tests.helpers import shrink
from tests.helpers.image.images import fill

#: Images that are read; RepeatAugSampler draws multiples of 256.
IMAGES = dict(train=258, val=12, test=12)


class Shrinker(shrink.Shrinker):
    """Shrinks ImageNet to an image a class, of noise, and encoders to two layers."""

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
        init = backbone.get('backbone', backbone).get('init_cfg')
        if isinstance(init, dict) and init.get('type') == 'Pretrained':
            self.weights.append(self.provide(init.checkpoint, self.train_before))
        return width

    @staticmethod
    def _backbone(backbone: ConfigDict, inserted: bool) -> int:
        """Shrink an encoder; return its output width."""
        kind = backbone.type.rpartition('.')[2]
        if kind in ('VisionTransformer', 'ReleasedViT', 'MAEViT'):
            if isinstance(backbone.arch, str):
                # `layers.5` must stay where it is, or `layers.11` of a base model.
                depth = 12 if backbone.arch.startswith('b') else 7
                backbone.img_size = 32
                backbone.arch = dict(
                    embed_dims=16, num_heads=2, feedforward_channels=32
                )
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
        if kind == 'PackagedEncoder':
            # A real file, in full, as the language models of packages are.
            shrink.require_package(backbone.encoder, PACKAGED_ENCODERS)
            return 1280
        raise AssertionError(f'teach tests/helpers/image/shrink.py to shrink {kind}')

    def data(self, loader: ConfigDict, split: str) -> None:
        dataset = loader.dataset
        if dataset.type in ('lm4ve.DigitsDataset', 'lm4ve.TexturedDigits'):
            dataset.indices = 16
            if 'variants' in dataset:
                dataset.variants = 1
            loader.batch_size = 8
            return
        if dataset.data_root == 'data/photos':
            # Batch norms of a few values would magnify rounding.
            loader.batch_size = 16
            self.provide(dataset.data_root, _write_photos)
            shrink.shrink_images(dataset.pipeline)
            return
        loader.batch_size = 64 if split == 'train' else 4
        if dataset.type not in ('lm4ve.ImageNetC', 'lm4ve.ImageNetVariant'):
            dataset.indices = IMAGES[split]
        self.provide(dataset.data_root, WRITERS[Path(dataset.data_root).name])
        if dataset.data_root == 'data/glyphs':
            dataset.indices = 8
            return  # its pictures are small
        if dataset.type == 'lm4ve.ImageNetC':
            dataset.update(corruptions=['fog'], severities=[1])
        if dataset.type in ('lm4ve.ImageNetC', 'lm4ve.ImageNetVariant'):
            loader.batch_size = 250
        shrink.shrink_images(dataset.pipeline)


def _write_imagenet(root: Path) -> None:
    """Write a folder in ImageNet's layout, with an image a class."""
    for split in ('train', 'val'):
        fill(root / split, class_indices('sketch'), 1)


def _write_photos(root: Path) -> None:
    """Write the classes that the configs for folders name."""
    for split in ('train', 'val'):
        fill(root / split, ['cat', 'dog'], 16)


def _write_variant(variant: str, root: Path) -> None:
    """Write an image a class of ImageNet-A, -R or -Sketch."""
    fill(root, class_indices(variant), 1)


def _write_glyphs(root: Path) -> None:
    """Write pictures of letters, and their lists, as tools/image/picture_sets.py does."""
    letters = 'abcdefgh'
    fill(root, letters, 1)
    for split in ('train', 'val'):
        lines = [f'{letter}/0.JPEG {i}\n' for i, letter in enumerate(letters)]
        (root / f'{split}.txt').write_text(''.join(lines))


#: The last part of a data set's path -> what writes it.
WRITERS = {
    'imagenet': _write_imagenet,
    'glyphs': _write_glyphs,
    'imagenet-a': partial(_write_variant, 'a'),
    'imagenet-r': partial(_write_variant, 'r'),
    'imagenet-sketch': lambda root: _write_variant('sketch', root / 'sketch'),
    'imagenet-c': lambda root: _write_variant('sketch', root / 'fog/1'),
}
