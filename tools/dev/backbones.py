"""Which fields let a block into the backbones of mmpretrain and mmaction2.

Every backbone that a host registers is in one of its two tables. ``write_tables.py`` makes the
pages of the documentation from them, and a test trains a step of each entry at tiny size and
checks that each refused one fails.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

#: Stands for the defaults of the host.
HOSTS_OWN = object()
_MAP = dict(norm_cfg=None)
_MEAN = dict(out_type='avg_featmap')


@dataclass(frozen=True)
class Entry:
    """A backbone that takes the block.

    Attributes:
        type (str): Its name in the host's registry, or in another one with the scope.
        backbone (dict): The fields that let it give features before its final norm.
        neck (dict): The fields of ``LLMBlockNeck`` beside ``in_channels`` and ``block``.
        then (tuple): Configs of the necks that follow.
        norms (tuple): The norms that ``lm4ve.WithoutNorms`` takes out.
        insert (dict): The fields of ``LLMBlockInsert`` beside ``backbone`` and ``neck``, where
            the block stands inside the backbone.
        model (str): The host's model; empty where the task has only one.
        head (str): The head that takes the features; empty for the usual one.
        note (str): Anything else that a user has to know, a clause.
        unused (str): Parameters that the host itself leaves without a gradient; usually empty.
        plain (dict or object): The fields of the plain encoder that differ from ``backbone``,
            also its type; :data:`HOSTS_OWN` where all of them have the host's defaults.
    """

    type: str
    backbone: dict[str, Any] = field(default_factory=dict)
    neck: dict[str, Any] = field(default_factory=dict)
    then: tuple[dict[str, Any], ...] = ()
    norms: tuple[str, ...] = ()
    insert: dict[str, Any] = field(default_factory=dict)
    model: str = ''
    head: str = ''
    note: str = ''
    unused: str = ''
    plain: Any = field(default_factory=dict)


@dataclass(frozen=True)
class Refused:
    """A backbone that does not take the block.

    Attributes:
        type (str): Its name in the host.
        reason (str): Why, a sentence without a full stop.
        error (str): The words of the error of building or running it; empty if it is not
            registered.
    """

    type: str
    reason: str
    error: str = ''


_RAW = dict(out_type='raw', final_norm=False)
_CLASS = dict(out_type='cls_token')
_POOL = (dict(type='GlobalAveragePooling'),)
_LN = dict(norm_cfg=dict(type='LN', eps=1e-5))
_COLUMNS = dict(_MEAN, layout='BCN', norm_first=True, **_LN)
_GROUP = dict(norm_cfg=dict(type='GN', num_groups=1))
#: The host averages before its norm by default.
_GAP = dict(gap_before_final_norm=False)

_BN, _VIT_S = dict(norm_cfg=dict(type='BN')), dict(model_name='vit_small_patch16_224')
_SCALES = dict(type='HRFuseScales', in_channels=(32, 64, 128, 256))
_PIXELS = '224 x 224 pixels, as the host asks'
_CONFORMER = 'the convolutional branch stays as it is'
_INCEPTION = 'before its last layer, which makes the classes'
_TIMM = "and any other of timm's models, with its norm's name or without one"
_HRNET = "the scales' widths are those of `arch='w32'`"


def _inside(name: str, model: str = '', head: str = '', note: str = '', **insert: Any) -> Entry:
    return Entry(name, insert=insert, model=model, head=head, note=note)


def _convolutional(*names: str, **backbone: Any) -> tuple[Entry, ...]:
    return tuple(Entry(n, backbone, _MAP, _POOL) for n in names)


IMAGE = (
    Entry('VisionTransformer', _RAW, _CLASS, plain=HOSTS_OWN),
    # Its layers norm both branches by ln1.
    Entry('DeiT3', _RAW, _CLASS, plain=HOSTS_OWN, unused='ln2'),
    Entry('DistilledVisionTransformer', _RAW, _CLASS, plain=HOSTS_OWN),
    Entry('T2T_ViT', _RAW, dict(_CLASS, **_LN), plain=HOSTS_OWN),
    Entry('RevVisionTransformer', _RAW, dict(_MEAN, norm_first=True), plain=HOSTS_OWN),
    Entry('BEiTViT', _RAW, dict(_MEAN, num_extra_tokens=1), plain=HOSTS_OWN),
    Entry(
        'ViTEVA02',
        _RAW,
        dict(_MEAN, num_extra_tokens=1, **_LN),
        plain=dict(out_type='avg_featmap'),  # as the host's configs have it
    ),
    Entry('XCiT', dict(out_type='raw'), _CLASS, norms=('norm',), plain=HOSTS_OWN),
    Entry('TIMMBackbone', _VIT_S, _CLASS, norms=('timm_model.norm',), note=_TIMM),
    Entry('SwinTransformer', dict(norm_cfg=None), _LN, _POOL, plain=HOSTS_OWN),
    Entry('SwinTransformerV2', dict(norm_cfg=None), _LN, _POOL, plain=HOSTS_OWN),
    _inside('MixMIMTransformer', after='layers.3'),
    _inside('TNT', after='layers.11', index=1),
    _inside('Conformer', '', 'ConformerHead', _CONFORMER, after='conv_trans_12', index=1),
    Entry('lm4ve.RawConvNeXt', {}, _MEAN, plain=dict(type='ConvNeXt')),
    Entry('ConvNeXt', _GAP, _MEAN, norms=('norm3',), plain=HOSTS_OWN),
    Entry('HorNet', _GAP, _MEAN, norms=('norm3',), plain=HOSTS_OWN),
    Entry('EdgeNeXt', _GAP, dict(_MEAN, **_LN), norms=('norm3',), plain=HOSTS_OWN),
    Entry('TinyViT', _GAP, dict(_MEAN, **_LN), norms=('norm3',), plain=HOSTS_OWN),
    Entry('DaViT', {}, _LN, _POOL, norms=('norm3',)),
    Entry('VAN', {}, _LN, _POOL, norms=('norm4',)),
    Entry('PoolFormer', {}, _GROUP, _POOL, norms=('norm6',)),
    Entry('RIFormer', {}, _GROUP, _POOL, norms=('norm6',)),
    Entry('MViT', {}, {}, _POOL, norms=('norm3',)),
    Entry('EfficientFormer', {}, _COLUMNS, norms=('norm3',), note=_PIXELS),
    Entry('MlpMixer', {}, _COLUMNS, norms=('ln1',)),
    Entry('RepMLPNet', dict(final_norm=False), _BN, _POOL, plain=HOSTS_OWN),
    *_convolutional('PCPVT', 'SVT', 'LeViT', 'MobileViT', 'RepLKNet', 'HiViT'),
    *_convolutional('ViTSAM', out_channels=0),
    Entry('Vig', {}, _MAP, _POOL, note=_PIXELS),
    Entry('PyramidVig', {}, _MAP, _POOL, note=_PIXELS),
    *_convolutional(
        *('ResNet', 'ResNetV1c', 'ResNetV1d', 'ResNeXt', 'SEResNet', 'SEResNeXt', 'Res2Net'),
        *('ResNeSt', 'RegNet', 'ResNet_CIFAR', 'MobileNetV2', 'MobileNetV3', 'ShuffleNetV1'),
        *('ShuffleNetV2', 'EfficientNet', 'EfficientNetV2', 'RepVGG', 'MobileOne', 'ConvMixer'),
        *('CSPDarkNet', 'CSPResNet', 'CSPResNeXt', 'DenseNet'),
    ),
    *_convolutional('VGG', 'AlexNet', num_classes=-1),
    Entry('HRNet', {}, dict(_MAP, keep_others=True), (_SCALES, *_POOL), note=_HRNET),
    Entry('LeNet5', {}, _MAP, _POOL, note='gray pictures; 32 x 32 pixels give one token'),
    _inside('InceptionV3', '', 'ClsHead', _INCEPTION, after='Mixed_7c'),
)

_SPARK = (
    'It runs only in the pre-training of SparK, which sets the mask of the patches that it sees; '
    'its weights load into `{}`'
)
IMAGE_REFUSED = (
    Refused('CSPNet', 'It is the unregistered base of `CSPDarkNet`, `CSPResNet`, `CSPResNeXt`'),
    Refused('SparseResNet', _SPARK.format('ResNet'), "'NoneType' object"),
    Refused('SparseConvNeXt', _SPARK.format('ConvNeXt'), "'NoneType' object"),
)


_3D, _2D = 'Recognizer3D', 'lm4ve.Recognizer2D'


def _clips(*names: str, model: str = _3D, head: str = 'I3DHead', **neck: Any) -> list[Entry]:
    return [Entry(n, {}, dict(_MAP, **neck), model=model, head=head) for n in names]


_TOKENS = dict(model=_3D, head='TimeSformerHead')
VIDEO = (
    Entry('VisionTransformer', dict(return_feat_map=True), _MEAN, plain=HOSTS_OWN, **_TOKENS),
    Entry('SwinTransformer3D', {}, _LN, norms=('norm3',), model=_3D, head='I3DHead'),
    Entry('MViT', dict(output_cls_token=False), {}, norms=('norm3',), model=_3D, head='I3DHead'),
    _inside('TimeSformer', **_TOKENS, after='transformer_layers.layers.11'),
    Entry(
        'UniFormerV2',
        {},
        dict(layout='NBC'),
        insert=dict(after='transformer.resblocks.11'),
        note='the block sees one frame at a time',
        **_TOKENS,
    ),
    *_clips('UniFormer', 'ResNet3d', 'ResNet3dSlowOnly', 'ResNet3dCSN', 'ResNet2Plus1d', 'C2D'),
    *_clips('X3D', head='X3DHead'),
    *_clips('ResNet3dSlowFast', head='SlowFastHead', index=0, keep_others=True),
    _inside('C3D', _3D, 'I3DHead', 'before its two linear layers', after='pool5'),
    *_clips('ResNet', 'MobileNetV2', model=_2D, head='TSNHead'),
    *_clips('ResNetTSM', 'MobileNetV2TSM', 'MobileOneTSM', 'TANet', model=_2D, head='TSMHead'),
    _inside('OmniResNet', 'RecognizerOmni', 'OmniHead', 'pictures and clips', after='layer4'),
    _inside('RGBPoseConv3D', 'MMRecognizer3D', 'RGBPoseHead', after='rgb_path.layer4'),
    _inside('STGCN', 'RecognizerGCN', 'GCNHead', 'joints and frames are tokens', after='gcn.9'),
    _inside('AAGCN', 'RecognizerGCN', 'GCNHead', 'joints and frames are tokens', after='gcn.9'),
    _inside('ResNetAudio', 'RecognizerAudio', 'TSNAudioHead', after='layer4'),
)

VIDEO_REFUSED = (
    Refused('ResNet3dLayer', 'It is one stage of `ResNet3d`, which takes the block', 'channels'),
    Refused('ResNetTIN', 'mmcv-lite lacks its compiled operator `tin_shift`', 'tin_shift'),
)


def config_lines(entry: Entry, host: str) -> tuple[str, str]:
    """Return what the documentation shows of an entry: the backbone's fields, the neck's.

    Args:
        entry (Entry): A row.
        host (str): The scope of names that have none.
    """
    backbone = ', '.join([f"type='{full_type(entry.type, host)}'", *_fields(entry.backbone)])
    if entry.norms:
        backbone = f"type='lm4ve.WithoutNorms', norms={[*entry.norms]}, backbone=dict({backbone})"
    neck = ', '.join(_fields(entry.neck))
    neck = f'`{neck}`' if neck else 'nothing'
    if entry.insert:
        insert = ', '.join(_fields(entry.insert))
        backbone = f"type='LLMBlockInsert', {insert}, backbone=dict({backbone}), neck=..."
        neck = 'inside the backbone' if neck == 'nothing' else f'inside the backbone: {neck}'
    then = ''.join(f', then `{_follower(cfg)}`' for cfg in entry.then)
    return f'`{backbone}`', neck + then


def full_type(name: str, host: str) -> str:
    """Return a registered name with its scope."""
    return name if '.' in name else f'{host}.{name}'


def works_table(entries: Iterable[Entry], host: str) -> str:
    """Return the Markdown table of the backbones that take the block."""
    entries = list(entries)
    titles = ['`backbone=dict(...)`: these fields and your sizes']
    titles += ["`neck=dict(type='LLMBlockNeck', ...)`: beside `in_channels` and `block`"]
    titles += ['model and head'] * any(e.model for e in entries)
    names_of: dict[tuple[str, ...], list[str]] = {}  # entries that differ in the type alone
    for entry in entries:
        cells = [*config_lines(replace(entry, type=f'{host}.NAME'), host)]
        if len(titles) == 3:
            cells += [', '.join(f'`{n}`' for n in (entry.model, entry.head) if n)]
        elif entry.head:
            cells[-1] += f', head `{entry.head}`'
        cells[-1] += f'; {entry.note}' if entry.note else ''
        names_of.setdefault(tuple(cells), []).append(entry.type)
    rows = []
    for (backbone, *others), names in names_of.items():
        if len(names) == 1:
            backbone = backbone.replace(f'{host}.NAME', full_type(names[0], host))
        else:
            backbone += ', NAME one of ' + ', '.join(f'`{n}`' for n in names)
        rows.append([backbone, *others])
    return markdown(titles, rows)


def refused_table(refused: Iterable[Refused]) -> str:
    """Return the Markdown table of the backbones that do not take it, with the reasons."""
    return markdown(['backbone', 'why'], [[f'`{r.type}`', r.reason] for r in refused])


def markdown(titles: list[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    lines = [f'| {" | ".join(cells)} |' for cells in (titles, *rows)]
    return '\n'.join([lines[0], '|---' * len(titles) + '|', *lines[1:]])


def _follower(cfg: dict[str, Any]) -> str:
    fields = _fields({k: v for k, v in cfg.items() if k != 'type'})
    return f'{cfg["type"]}({", ".join(fields)})' if fields else cfg['type']


def _fields(values: dict[str, Any]) -> list[str]:
    return [f'{k}={_call(v)}' for k, v in values.items()]


def _call(value: Any) -> str:
    return f'dict({", ".join(_fields(value))})' if isinstance(value, dict) else repr(value)


IMAGE_TABLES = {
    'image backbones': partial(works_table, IMAGE, 'mmpretrain'),
    'refused image backbones': partial(refused_table, IMAGE_REFUSED),
}
VIDEO_TABLES = {
    'video backbones': partial(works_table, VIDEO, 'mmaction'),
    'refused video backbones': partial(refused_table, VIDEO_REFUSED),
}
