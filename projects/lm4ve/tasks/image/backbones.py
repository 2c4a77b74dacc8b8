"""Which fields of mmpretrain's backbones let a block come before the final norm.

Every backbone that mmpretrain registers is in one of the two tables; see
``lm4ve/tasks/base/backbone_tables.py``.
"""

from typing import Any

from lm4ve.tasks.base.backbone_tables import Entry, Refused, tables

HOST = 'mmpretrain'
_RAW = dict(out_type='raw', final_norm=False)
_MAP = dict(norm_cfg=None)
_MEAN = dict(out_type='avg_featmap')
_CLASS = dict(out_type='cls_token')
_POOL = (dict(type='GlobalAveragePooling'),)
_SWIN = dict(norm_cfg=dict(type='LN', eps=1e-5))

_PIXELS = '224 x 224 pixels, as the host asks'


def _convolutional(*names: str, **backbone: Any) -> tuple[Entry, ...]:
    return tuple(Entry(n, backbone, _MAP, _POOL) for n in names)


BACKBONES = (
    Entry('VisionTransformer', _RAW, _CLASS),
    # Its layers norm both branches by ln1.
    Entry('DeiT3', _RAW, _CLASS, unused='ln2'),
    Entry('DistilledVisionTransformer', _RAW, _CLASS),
    Entry('T2T_ViT', _RAW, _CLASS),
    Entry('RevVisionTransformer', _RAW, _MEAN),
    Entry('BEiTViT', _RAW, dict(_MEAN, num_extra_tokens=1)),
    Entry('ViTEVA02', _RAW, dict(_MEAN, num_extra_tokens=1)),
    Entry('XCiT', dict(out_type='raw'), _CLASS, norms=('norm',)),
    Entry(
        'TIMMBackbone',
        dict(model_name='vit_small_patch16_224'),
        _CLASS,
        norms=('timm_model.norm',),
        note="and any other of timm's models, with its norm's name or without one",
    ),
    Entry('SwinTransformer', dict(norm_cfg=None), _SWIN, _POOL),
    Entry('SwinTransformerV2', dict(norm_cfg=None), _SWIN, _POOL),
    Entry('MixMIMTransformer', insert=dict(after='layers.3')),
    Entry('TNT', insert=dict(after='layers.11', index=1)),
    Entry(
        'Conformer',
        insert=dict(after='conv_trans_12', index=1),
        head='ConformerHead',
        note='the convolutional branch stays as it is',
    ),
    Entry('PCPVT', {}, _MEAN),
    Entry('SVT', {}, _MEAN),
    Entry('lm4ve.RawConvNeXt', {}, _MEAN),
    Entry('ConvNeXt', dict(gap_before_final_norm=False), _MEAN, norms=('norm3',)),
    Entry('HorNet', dict(gap_before_final_norm=False), _MEAN, norms=('norm3',)),
    Entry('EdgeNeXt', dict(gap_before_final_norm=False), _MEAN, norms=('norm3',)),
    Entry('TinyViT', dict(gap_before_final_norm=False), _MEAN, norms=('norm3',)),
    Entry('DaViT', {}, _MEAN, norms=('norm3',)),
    Entry('VAN', {}, _MEAN, norms=('norm4',)),
    Entry('PoolFormer', {}, _MEAN, norms=('norm6',)),
    Entry('RIFormer', {}, _MEAN, norms=('norm6',)),
    Entry('MViT', {}, _MEAN, norms=('norm3',)),
    Entry('EfficientFormer', dict(reshape_last_feat=True), _MEAN, norms=('norm3',), note=_PIXELS),
    Entry('MlpMixer', {}, dict(_MEAN, layout='BCN'), norms=('ln1',)),
    Entry('RepMLPNet', dict(final_norm=False), _MEAN),
    Entry('LeViT', {}, _MEAN),
    Entry('MobileViT', {}, _MEAN),
    Entry('RepLKNet', {}, _MEAN),
    Entry('ViTSAM', dict(out_channels=0), _MEAN),
    Entry('HiViT', {}, _MEAN),
    Entry('Vig', {}, _MAP, _POOL, note=_PIXELS),
    Entry('PyramidVig', {}, _MAP, _POOL, note=_PIXELS),
    *_convolutional(
        *('ResNet', 'ResNetV1c', 'ResNetV1d', 'ResNeXt', 'SEResNet', 'SEResNeXt', 'Res2Net'),
        *('ResNeSt', 'RegNet', 'ResNet_CIFAR', 'MobileNetV2', 'MobileNetV3', 'ShuffleNetV1'),
        *('ShuffleNetV2', 'EfficientNet', 'EfficientNetV2', 'RepVGG', 'MobileOne', 'ConvMixer'),
        *('CSPDarkNet', 'CSPResNet', 'CSPResNeXt', 'DenseNet'),
    ),
    *_convolutional('VGG', 'AlexNet', num_classes=-1),
    Entry(
        'HRNet',
        {},
        dict(_MAP, keep_others=True),
        (dict(type='HRFuseScales', in_channels=(32, 64, 128, 256)), *_POOL),
        note="the scales' widths are those of `arch='w32'`",
    ),
    Entry(
        'LeNet5', {}, _MAP, _POOL, note='gray pictures, of which 32 x 32 pixels give a single token'
    ),
    Entry(
        'InceptionV3',
        insert=dict(after='Mixed_7c'),
        head='ClsHead',
        note='before its last layer, which makes the classes',
    ),
)

REFUSED = (
    Refused(
        'CSPNet',
        'It is the base of `CSPDarkNet`, `CSPResNet` and `CSPResNeXt`, which are above, and is '
        'not registered',
    ),
    Refused(
        'SparseResNet',
        'It runs only in the pre-training of SparK, which sets the mask of the patches that it '
        'sees; its weights load into `ResNet`',
        "'NoneType' object",
    ),
    Refused(
        'SparseConvNeXt',
        'It runs only in the pre-training of SparK, which sets the mask of the patches that it '
        'sees; its weights load into `ConvNeXt`',
        "'NoneType' object",
    ),
)

TABLES = tables('image', BACKBONES, REFUSED, HOST)
