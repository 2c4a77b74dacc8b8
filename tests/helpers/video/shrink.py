"""What :mod:`tests.helpers.shrink` makes small in a video config."""

from functools import partial
from pathlib import Path

import torch
import torchvision
from mmaction.models.backbones.swin import SwinTransformer3D
from mmengine.config import ConfigDict

from tests.helpers import shrink
from tests.helpers.tools import run_tool_here
from tests.helpers.video import released
from tests.helpers.video.videos import write_broken, write_list, write_noise


class Shrinker(shrink.Shrinker):
    """Shrinks data sets to four whole videos, in training with a broken one, and encoders.

    These get two layers.
    """

    task = 'video'
    metric = 'acc/top1'

    def model(self, model: ConfigDict) -> int:
        width = self._backbone(model.backbone)
        model.cls_head.in_channels = width
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
            self.weights.append(
                self.provide(backbone.init_cfg.checkpoint, _write_pretrained)
            )
            return released.WIDTH
        if kind == 'RawSwinTransformer3D':
            arch = dict(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2])
            backbone.update(arch=arch, window_size=(2, 2, 2))
            self.answer(backbone.pretrained, partial(_write_swin, arch))
            return 64
        if kind == 'ResNet':
            stages = dict(
                num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(1,)
            )
            backbone.update(depth=18, **stages)
            self.answer(backbone.pretrained, _write_resnet)
            return 128
        raise AssertionError(f'teach tests/helpers/video/shrink.py to shrink {kind}')

    def data(self, loader: ConfigDict, split: str) -> None:
        loader.batch_size = 1 if split == 'test' else 2
        dataset = loader.dataset
        if dataset.type == 'lm4ve.MovingDigitsDataset':
            dataset.clips = dict(train=8, val=8, test=8)
            return
        part = 'train' if split == 'train' else 'val'
        names = [f'{part}{i}.mp4' for i in range(4)]
        for seed, name in enumerate(names):
            self.provide(
                f'{dataset.data_prefix.video}/{name}', partial(write_noise, seed=seed)
            )
        if split == 'train':
            # Training replaces it; what is scored has to be whole.
            self.provide(f'{dataset.data_prefix.video}/broken', write_broken)
            names.append('broken/truncated_late.mp4')
        self.provide(dataset.ann_file, partial(write_list, videos=names))
        shrink.shrink_images(dataset.pipeline)
        for transform in dataset.pipeline:
            if transform.get('clip_len') == 32:
                transform['clip_len'] = 8


def _write_pretrained(out: Path) -> None:
    """Write VideoMAE's pre-training of the shrunk ViT, converted."""
    torch.manual_seed(0)
    source = out.with_name('pretrain.pth')
    torch.save(dict(model=released.pretrained_state()), source)
    sizes = ('--img-size', released.SIZE, '--num-frames', released.FRAMES)
    run_tool_here('convert_checkpoint.py', 'video', source, out, *sizes)


def _write_swin(arch: dict, out: Path) -> None:
    """Write the pre-training of a Swin on images, by the names of Microsoft's release."""
    model = SwinTransformer3D(arch, window_size=(2, 2, 2))
    state = {
        k: v
        for k, v in model.state_dict().items()
        if 'relative_position_index' not in k
    }
    state['patch_embed.proj.weight'] = state['patch_embed.proj.weight'].sum(2)
    for name in state:
        if name.endswith('relative_position_bias_table'):  # of windows of one frame
            state[name] = state[name][: 3 * 3]
    state['norm.weight'] = state.pop('norm3.weight')
    state['norm.bias'] = state.pop('norm3.bias')
    torch.save(dict(model=state), out)


def _write_resnet(out: Path) -> None:
    """Write a ResNet as torchvision has it, without its last stages."""
    state = torchvision.models.resnet18().state_dict()
    last = 'layer3', 'layer4', 'fc'
    torch.save({k: v for k, v in state.items() if not k.startswith(last)}, out)
