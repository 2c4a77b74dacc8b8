"""What :mod:`tests.helpers.shrink` makes small in a video config."""

from pathlib import Path

import torch
from mmengine.config import ConfigDict

from tests.helpers import shrink
from tests.helpers.tools import run_tool_here
from tests.tasks.video import released
from tests.tasks.video.videos import write_broken, write_list, write_noise

CLASSES = 6  # more than five: top-5 is reported


class Shrinker(shrink.Shrinker):
    """Shrinks data sets to four whole videos and a broken one, encoders to two layers."""

    task = 'video'
    metric = 'acc/top1'

    def model(self, model: ConfigDict) -> int:
        width = self._backbone(model.backbone)
        model.cls_head.in_channels = width
        if model.cls_head.num_classes > 100:
            model.cls_head.num_classes = CLASSES
        for augment in (model.data_preprocessor.get('blending') or {}).get('augments', ()):
            augment['num_classes'] = CLASSES
        return width

    def _backbone(self, backbone: ConfigDict) -> int:
        """Shrink an encoder; return its output width."""
        kind = backbone.type.rpartition('.')[2]
        if kind == 'VisionTransformer':
            if backbone.get('init_cfg') is None:  # the demo's, which is small
                return backbone.embed_dims
            backbone.update(img_size=released.SIZE, patch_size=released.PATCH)
            sizes = dict(embed_dims=released.WIDTH, num_heads=released.HEADS)
            backbone.update(sizes, depth=released.DEPTH)
            backbone.init_cfg.checkpoint = self.written('videomae.pth', _write_pretrained)
            return released.WIDTH
        if kind == 'RawSwinTransformer3D':
            arch = dict(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2])
            backbone.update(arch=arch, window_size=(2, 2, 2), pretrained=None, pretrained2d=False)
            return 64
        if kind == 'ResNet':
            stages = dict(num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(1,))
            backbone.update(depth=18, pretrained=None, **stages)
            return 128
        raise AssertionError(f'teach tests/tasks/video/shrink.py to shrink {kind}')

    def data(self, loader: ConfigDict, split: str) -> None:
        loader.batch_size = 1 if split == 'test' else 2
        dataset = loader.dataset
        # MMEngine collects garbage when it serializes: slow beside torch.
        dataset.serialize_data = False
        if dataset.type == 'lm4ve.MovingDigitsDataset':
            dataset.data_root = str(self.folder / 'moving-digits')
            dataset.clips = dict(train=8, val=8, test=8)
            return
        videos = self.written('videos', _write_videos)
        dataset.ann_file = f'{videos}/{"train" if split == "train" else "val"}.txt'
        dataset.data_prefix = dict(video=videos)
        shrink.shrink_images(dataset.pipeline)
        for transform in dataset.pipeline:
            if transform.get('clip_len') == 32:
                transform['clip_len'] = 8


def _write_videos(root: Path) -> None:
    """Write videos and their lists; one video of each list is broken."""
    broken = write_broken(root / 'broken')['truncated_late']
    for split in ('train', 'val'):
        names = [f'{split}{i}.mp4' for i in range(4)]
        for i, name in enumerate(names):
            write_noise(root / name, seed=i)
        write_list(root / f'{split}.txt', [*names, f'broken/{broken.name}'])


def _write_pretrained(out: Path) -> None:
    """Write VideoMAE's pre-training of the shrunk ViT, converted."""
    torch.manual_seed(0)
    source = out.with_name('pretrain.pth')
    torch.save(dict(model=released.pretrained_state()), source)
    sizes = ('--img-size', released.SIZE, '--num-frames', released.FRAMES)
    run_tool_here('convert_checkpoint.py', 'video', source, out, *sizes)
