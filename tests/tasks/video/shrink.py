"""Make any video config small enough to run in a second or two.

As :mod:`tests.tasks.image.shrink` does for images: the structure, hooks, samplers,
pipelines and optimizer settings stay; widths, depths, sizes and numbers shrink.
"""

from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict

from tests.tasks.image.shrink import IMAGE_SIZE, Shrinker
from tests.tasks.video import released
from tests.tasks.video.videos import write_broken, write_noise

CLASSES = 6  # more than five: top-5 is reported


class VideoShrinker(Shrinker):
    """Shrinks video configs; writes stand-in models and videos once."""

    task = 'video'

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._videos = None

    def videos(self) -> Path:
        """Return a folder with lists; one video of each is broken."""
        if self._videos is None:
            root = self.folder / 'videos'
            broken = write_broken(root / 'broken')
            for split in ('train', 'val'):
                names = [f'{split}{i}.mp4' for i in range(4)]
                for i, name in enumerate(names):
                    write_noise(root / name, seed=i)
                names.append(f'broken/{broken["truncated_late"].name}')
                (root / f'{split}.txt').write_text(
                    ''.join(f'{name} {i % CLASSES}\n' for i, name in enumerate(names))
                )
            self._videos = root
        return self._videos

    def pretrained(self) -> str:
        """Return VideoMAE's pre-training of the shrunk ViT, converted."""
        from tests.helpers.tools import run_tool_here

        source, out = self.folder / 'pretrain.pth', self.folder / 'videomae.pth'
        if not out.is_file():
            torch.manual_seed(0)
            torch.save(dict(model=released.pretrained_state()), source)
            run_tool_here(
                'video/convert_checkpoint.py',
                source,
                out,
                '--img-size',
                released.SIZE,
                '--num-frames',
                released.FRAMES,
            )
        return str(out)

    def _model(self, model: ConfigDict) -> None:
        backbone = model.backbone
        kind = backbone.type.rpartition('.')[2]
        if kind == 'VisionTransformer':
            width = self._vit(backbone)
        elif kind == 'RawSwinTransformer3D':
            backbone.update(
                arch=dict(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2]),
                window_size=(2, 2, 2),
                pretrained=None,
                pretrained2d=False,
            )
            width = 64
        elif kind == 'ResNet':
            backbone.update(depth=18, pretrained=None)
            width = 512
        else:
            raise AssertionError(f'teach tests/video/shrink.py to shrink {kind}')
        if model.get('neck') is not None:
            model.neck.in_channels = width
        model.cls_head.in_channels = width
        if model.cls_head.num_classes > 100:
            model.cls_head.num_classes = CLASSES
        for augment in (model.data_preprocessor.get('blending') or {}).get('augments', ()):
            augment['num_classes'] = CLASSES

    def _vit(self, backbone: ConfigDict) -> int:
        if backbone.get('init_cfg') is None:  # the demo's, which is small
            return backbone.embed_dims
        backbone.update(
            img_size=released.SIZE,
            patch_size=released.PATCH,
            embed_dims=released.WIDTH,
            depth=released.DEPTH,
            num_heads=released.HEADS,
        )
        backbone.init_cfg.checkpoint = self.pretrained()
        return released.WIDTH

    def _data(self, cfg: Config, field: str) -> None:
        loader = cfg.get(f'{field}_dataloader')
        loader.num_workers = 0
        loader.pop('persistent_workers', None)
        loader.batch_size = 1 if field == 'test' else 2
        dataset = loader.dataset
        # MMEngine collects garbage when it serialises: slow beside torch.
        dataset.serialize_data = False
        if dataset.type == 'lm4ve.MovingDigitsDataset':
            dataset.data_root = str(self.folder / 'moving-digits')
            dataset.clips = dict(train=8, val=8, test=8)
            return
        split = 'train' if field == 'train' else 'val'
        dataset.ann_file = str(self.videos() / f'{split}.txt')
        dataset.data_prefix = dict(video=str(self.videos()))
        for transform in dataset.pipeline:
            for key in ('scale', 'crop_size', 'input_size'):
                if key in transform:
                    transform[key] = _smaller(transform[key])
            if transform.get('clip_len') == 32:
                transform['clip_len'] = 8


def _smaller(size):
    if isinstance(size, (list, tuple)):
        return type(size)(_smaller(s) for s in size)
    return {224: IMAGE_SIZE, 256: IMAGE_SIZE + 4}.get(size, size)
