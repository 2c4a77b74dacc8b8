"""Which fields of mmaction2's backbones let a block in.

Every backbone that mmaction2 registers is in one of the two tables; see
``lm4ve/tasks/base/backbone_tables.py``.
"""

from typing import Any

from lm4ve.tasks.base.backbone_tables import Entry, Refused, tables

HOST = 'mmaction'
_MAP = dict(norm_cfg=None)
_MEAN = dict(out_type='avg_featmap')
_3D, _2D = 'Recognizer3D', 'lm4ve.Recognizer2D'


def _clips(*names: str, head: str = 'I3DHead', **neck: Any) -> tuple[Entry, ...]:
    return tuple(Entry(n, {}, dict(_MAP, **neck), model=_3D, head=head) for n in names)


def _frames(*names: str, head: str = 'TSMHead') -> tuple[Entry, ...]:
    return tuple(Entry(n, {}, _MAP, model=_2D, head=head) for n in names)


def _inside(name: str, model: str, head: str, note: str = '', **insert: Any) -> Entry:
    return Entry(name, insert=insert, model=model, head=head, note=note)


BACKBONES = (
    Entry(
        'VisionTransformer', dict(return_feat_map=True), _MEAN, model=_3D, head='TimeSformerHead'
    ),
    Entry(
        'SwinTransformer3D',
        {},
        dict(norm_cfg=dict(type='LN', eps=1e-5)),
        norms=('norm3',),
        model=_3D,
        head='I3DHead',
    ),
    Entry(
        'MViT',
        dict(output_cls_token=False),
        _MEAN,
        norms=('norm3',),
        model=_3D,
        head='TimeSformerHead',
    ),
    _inside('TimeSformer', _3D, 'TimeSformerHead', after='transformer_layers.layers.11'),
    Entry(
        'UniFormerV2',
        {},
        dict(layout='NBC'),
        insert=dict(after='transformer.resblocks.11'),
        model=_3D,
        head='TimeSformerHead',
        note='the block sees one frame at a time',
    ),
    *_clips('UniFormer', 'ResNet3d', 'ResNet3dSlowOnly', 'ResNet3dCSN', 'ResNet2Plus1d', 'C2D'),
    *_clips('X3D', head='X3DHead'),
    *_clips('ResNet3dSlowFast', head='SlowFastHead', index=0, keep_others=True),
    _inside('C3D', _3D, 'I3DHead', 'before its two linear layers', after='pool5'),
    *_frames('ResNet', 'MobileNetV2', head='TSNHead'),
    *_frames('ResNetTSM', 'MobileNetV2TSM', 'MobileOneTSM', 'TANet'),
    _inside('OmniResNet', 'RecognizerOmni', 'OmniHead', 'pictures and clips', after='layer4'),
    _inside('RGBPoseConv3D', 'MMRecognizer3D', 'RGBPoseHead', after='rgb_path.layer4'),
    _inside('STGCN', 'RecognizerGCN', 'GCNHead', 'joints and frames are tokens', after='gcn.9'),
    _inside('AAGCN', 'RecognizerGCN', 'GCNHead', 'joints and frames are tokens', after='gcn.9'),
    _inside('ResNetAudio', 'RecognizerAudio', 'TSNAudioHead', after='layer4'),
)

REFUSED = (
    Refused(
        'ResNet3dLayer',
        'It is one stage of `ResNet3d`, which takes features instead of clips; put the block after '
        'the whole network',
        'channels',
    ),
    Refused(
        'ResNetTIN',
        'It needs the operator `tin_shift`, compiled, which mmcv-lite lacks; with a full mmcv the '
        'lines of `ResNetTSM` are a start, which nobody has tried',
        'tin_shift',
    ),
)

TABLES = tables('video', BACKBONES, REFUSED, HOST)
