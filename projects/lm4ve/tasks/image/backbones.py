"""Which fields of mmpretrain's backbones let a block come before the final norm.

One table makes the page docs/guides/backbones.md and is walked by a test, which trains a
step of each entry at tiny size.
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Entry:
    """A backbone that takes the block.

    Attributes:
        type (str): Its name in mmpretrain's registry, or in ours with the scope.
        backbone (dict): The fields that let it give features before its final norm.
        neck (dict): The fields of ``LLMBlockNeck`` beside ``in_channels`` and ``block``.
        pools (bool): ``GlobalAveragePooling`` follows the neck.
        norms (tuple): The norms that ``lm4ve.WithoutNorms`` takes out.
        unused (str): What the host itself leaves without a gradient; empty as a rule.
    """

    type: str
    backbone: dict[str, Any] = field(default_factory=dict)
    neck: dict[str, Any] = field(default_factory=dict)
    pools: bool = False
    norms: tuple[str, ...] = ()
    unused: str = ''


_RAW = dict(out_type='raw', final_norm=False)
_MAP = dict(norm_cfg=None)
_MEAN = dict(out_type='avg_featmap')


def _convolutional(*names: str, **backbone: Any) -> tuple[Entry, ...]:
    return tuple(Entry(n, backbone, _MAP, pools=True) for n in names)


BACKBONES = (
    Entry('VisionTransformer', _RAW, dict(out_type='cls_token')),
    # Its layers norm both branches by ln1.
    Entry('DeiT3', _RAW, dict(out_type='cls_token'), unused='ln2'),
    Entry('DistilledVisionTransformer', _RAW, dict(out_type='cls_token')),
    Entry('T2T_ViT', _RAW, dict(out_type='cls_token')),
    Entry('RevVisionTransformer', _RAW, _MEAN),
    Entry('BEiTViT', _RAW, dict(_MEAN, num_extra_tokens=1)),
    Entry('ViTEVA02', _RAW, dict(_MEAN, num_extra_tokens=1)),
    Entry('SwinTransformer', dict(norm_cfg=None), dict(norm_cfg=dict(type='LN', eps=1e-5)), True),
    Entry('SwinTransformerV2', dict(norm_cfg=None), dict(norm_cfg=dict(type='LN', eps=1e-5)), True),
    Entry('PCPVT', {}, _MEAN),
    Entry('SVT', {}, _MEAN),
    Entry('lm4ve.RawConvNeXt', {}, _MEAN),
    Entry('HorNet', dict(gap_before_final_norm=False), _MEAN, norms=('norm3',)),
    Entry('EdgeNeXt', dict(gap_before_final_norm=False), _MEAN, norms=('norm3',)),
    Entry('TinyViT', dict(gap_before_final_norm=False), _MEAN, norms=('norm3',)),
    Entry('DaViT', {}, _MEAN, norms=('norm3',)),
    Entry('VAN', {}, _MEAN, norms=('norm4',)),
    Entry('PoolFormer', {}, _MEAN, norms=('norm6',)),
    Entry('RIFormer', {}, _MEAN, norms=('norm6',)),
    Entry('MViT', {}, _MEAN, norms=('norm3',)),
    Entry('LeViT', {}, _MEAN),
    Entry('MobileViT', {}, _MEAN),
    Entry('RepLKNet', {}, _MEAN),
    Entry('ViTSAM', dict(out_channels=0), _MEAN),
    Entry('HiViT', {}, _MEAN),
    *_convolutional(
        *('ResNet', 'ResNetV1c', 'ResNetV1d', 'ResNeXt', 'SEResNet', 'SEResNeXt', 'Res2Net'),
        *('ResNeSt', 'RegNet', 'ResNet_CIFAR', 'MobileNetV2', 'MobileNetV3', 'ShuffleNetV1'),
        *('ShuffleNetV2', 'EfficientNet', 'EfficientNetV2', 'RepVGG', 'MobileOne', 'ConvMixer'),
        *('CSPDarkNet', 'CSPResNet', 'CSPResNeXt', 'DenseNet'),
    ),
    *_convolutional('VGG', 'AlexNet', num_classes=-1),
)


def config_lines(entry: Entry) -> tuple[str, str]:
    """Return what the documentation shows of an entry: the backbone's fields, the neck's."""
    scope = '' if entry.type.startswith('lm4ve.') else 'mmpretrain.'
    backbone = ', '.join([f"type='{scope}{entry.type}'", *_fields(entry.backbone)])
    if entry.norms:
        backbone = f"type='lm4ve.WithoutNorms', norms={[*entry.norms]}, backbone=dict({backbone})"
    neck = ', '.join(_fields(entry.neck)) or 'nothing'
    return backbone, neck + (', then `GlobalAveragePooling`' if entry.pools else '')


def _fields(values: dict[str, Any]) -> list[str]:
    return [f'{k}={_call(v)}' for k, v in values.items()]


def _call(value: Any) -> str:
    return f'dict({", ".join(_fields(value))})' if isinstance(value, dict) else repr(value)
