"""Write the tables of the documentation that are made from Python tables.

    python tools/dev/write_tables.py            # write them
    python tools/dev/write_tables.py --check    # name the pages that differ

Two tables have the families of language models. The others say which
fields let a block into the backbones of mmpretrain and mmaction2: every backbone that a
host registers is in one of its two tables here. Tests fail while a page and the Python
table differ; they train a step of each entry at tiny size and check that each refused
one fails.
"""

import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from lm4ve.blocks.families import FAMILIES
from lm4ve.runner.flags import build_parser

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.helpers.wrappers import WRAPPERS

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    f'docs/guides/{n}.md'
    for n in ('language_models', 'backbones', 'action_recognition')
]
START = '<!-- made by tools/dev/write_tables.py: {} -->'
END = '<!-- end of {} -->'

# -------------------------------------------------------------------------------
# backbones
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
        neck (dict): The fields of ``LLMBlockNeck`` beside ``in_channels`` and
            ``block``.
        then (tuple): Configs of the necks that follow.
        norms (tuple): The norms that ``lm4ve.WithoutNorms`` takes out.
        insert (dict): The fields of ``LLMBlockInsert`` beside ``backbone`` and
            ``neck``, where the block stands inside the backbone.
        model (str): The host's model; empty where the task has only one.
        head (str): The head that takes the features; empty for the usual one.
        note (str): Anything else that a user has to know, a clause.
        unused (str): Parameters that the host itself leaves without a gradient; usually
            empty.
        plain (dict or object): The fields of the plain encoder that differ from
            ``backbone``, also its type; :data:`HOSTS_OWN` where all of them have the
            host's defaults.
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
        error (str): The words of the error of building or running it; empty if it is
            not registered.
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

_BN = dict(norm_cfg=dict(type='BN'))
_VIT_S = dict(model_name='vit_small_patch16_224')
_SCALES = dict(type='HRFuseScales', in_channels=(32, 64, 128, 256))
_PIXELS = '224 x 224 pixels, as the host asks'
_CONFORMER = 'the convolutional branch stays as it is'
_INCEPTION = 'before its last layer, which makes the classes'
_TIMM = "and any other of timm's models, with its norm's name or without one"
_HRNET = "the scales' widths are those of `arch='w32'`"


def _inside(
    name: str, model: str = '', head: str = '', note: str = '', **insert: Any
) -> Entry:
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
    # The plain one is as the host's configs have it.
    Entry('ViTEVA02', _RAW, dict(_MEAN, num_extra_tokens=1, **_LN), plain=_MEAN),
    Entry('XCiT', dict(out_type='raw'), _CLASS, norms=('norm',), plain=HOSTS_OWN),
    Entry('TIMMBackbone', _VIT_S, _CLASS, norms=('timm_model.norm',), note=_TIMM),
    Entry('SwinTransformer', dict(norm_cfg=None), _LN, _POOL, plain=HOSTS_OWN),
    Entry('SwinTransformerV2', dict(norm_cfg=None), _LN, _POOL, plain=HOSTS_OWN),
    _inside('MixMIMTransformer', after='layers.3'),
    _inside('TNT', after='layers.11', index=1),
    _inside(
        'Conformer', '', 'ConformerHead', _CONFORMER, after='conv_trans_12', index=1
    ),
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
        *(
            'ResNet',
            'ResNetV1c',
            'ResNetV1d',
            'ResNeXt',
            'SEResNet',
            'SEResNeXt',
            'Res2Net',
        ),
        *(
            'ResNeSt',
            'RegNet',
            'ResNet_CIFAR',
            'MobileNetV2',
            'MobileNetV3',
            'ShuffleNetV1',
        ),
        *(
            'ShuffleNetV2',
            'EfficientNet',
            'EfficientNetV2',
            'RepVGG',
            'MobileOne',
            'ConvMixer',
        ),
        *('CSPDarkNet', 'CSPResNet', 'CSPResNeXt', 'DenseNet'),
    ),
    *_convolutional('VGG', 'AlexNet', num_classes=-1),
    Entry('HRNet', {}, dict(_MAP, keep_others=True), (_SCALES, *_POOL), note=_HRNET),
    Entry(
        'LeNet5', {}, _MAP, _POOL, note='gray pictures; 32 x 32 pixels give one token'
    ),
    _inside('InceptionV3', '', 'ClsHead', _INCEPTION, after='Mixed_7c'),
)

_SPARK = (
    'It runs only in the pre-training of SparK, which sets the mask of the patches that it sees; '
    'its weights load into `{}`'
)
IMAGE_REFUSED = (
    Refused(
        'CSPNet',
        'It is the unregistered base of `CSPDarkNet`, `CSPResNet`, `CSPResNeXt`',
    ),
    Refused('SparseResNet', _SPARK.format('ResNet'), "'NoneType' object"),
    Refused('SparseConvNeXt', _SPARK.format('ConvNeXt'), "'NoneType' object"),
)


_3D = 'Recognizer3D'
_2D = 'lm4ve.Recognizer2D'


def _clips(
    *names: str, model: str = _3D, head: str = 'I3DHead', **neck: Any
) -> list[Entry]:
    return [Entry(n, {}, dict(_MAP, **neck), model=model, head=head) for n in names]


_TOKENS = dict(model=_3D, head='TimeSformerHead')
_LAST = dict(after='transformer.resblocks.11')
_FRAMES = 'the block sees one frame at a time'
VIDEO = (
    Entry(
        'VisionTransformer',
        dict(return_feat_map=True),
        _MEAN,
        plain=HOSTS_OWN,
        **_TOKENS,
    ),
    Entry('SwinTransformer3D', {}, _LN, norms=('norm3',), model=_3D, head='I3DHead'),
    Entry(
        'MViT',
        dict(output_cls_token=False),
        {},
        norms=('norm3',),
        model=_3D,
        head='I3DHead',
    ),
    _inside('TimeSformer', **_TOKENS, after='transformer_layers.layers.11'),
    Entry('UniFormerV2', {}, dict(layout='NBC'), insert=_LAST, note=_FRAMES, **_TOKENS),
    *_clips(
        'UniFormer',
        'ResNet3d',
        'ResNet3dSlowOnly',
        'ResNet3dCSN',
        'ResNet2Plus1d',
        'C2D',
    ),
    *_clips('X3D', head='X3DHead'),
    *_clips('ResNet3dSlowFast', head='SlowFastHead', index=0, keep_others=True),
    _inside('C3D', _3D, 'I3DHead', 'before its two linear layers', after='pool5'),
    *_clips('ResNet', 'MobileNetV2', model=_2D, head='TSNHead'),
    *_clips(
        'ResNetTSM',
        'MobileNetV2TSM',
        'MobileOneTSM',
        'TANet',
        model=_2D,
        head='TSMHead',
    ),
    _inside(
        'OmniResNet', 'RecognizerOmni', 'OmniHead', 'pictures and clips', after='layer4'
    ),
    _inside('RGBPoseConv3D', 'MMRecognizer3D', 'RGBPoseHead', after='rgb_path.layer4'),
    _inside(
        'STGCN',
        'RecognizerGCN',
        'GCNHead',
        'joints and frames are tokens',
        after='gcn.9',
    ),
    _inside(
        'AAGCN',
        'RecognizerGCN',
        'GCNHead',
        'joints and frames are tokens',
        after='gcn.9',
    ),
    _inside('ResNetAudio', 'RecognizerAudio', 'TSNAudioHead', after='layer4'),
)

VIDEO_REFUSED = (
    Refused(
        'ResNet3dLayer',
        'It is one stage of `ResNet3d`, which takes the block',
        'channels',
    ),
    Refused(
        'ResNetTIN', 'mmcv-lite lacks its compiled operator `tin_shift`', 'tin_shift'
    ),
)


# ----------------------------------------------------------------------------------
# tables
def full_type(name: str, host: str) -> str:
    """Return a registered name with its scope."""
    return name if '.' in name else f'{host}.{name}'


def config_lines(entry: Entry, name: str) -> list[str]:
    """Return what the documentation shows of an entry: the backbone's fields, the neck's."""
    backbone: dict[str, Any] = dict(type=name, **entry.backbone)
    if entry.norms:
        backbone = dict(
            type='lm4ve.WithoutNorms', norms=[*entry.norms], backbone=backbone
        )
    if entry.insert:
        backbone = dict(
            type='LLMBlockInsert', **entry.insert, backbone=backbone, neck=...
        )
    parts = []
    if entry.insert:
        parts.append('inside the backbone')
    if entry.neck:
        parts.append(f'`{_fields(entry.neck)}`')
    neck = ': '.join(parts) if parts else 'nothing'
    for cfg in entry.then:
        neck += f', then `{_follower(**cfg)}`'
    return [f'`{_fields(backbone)}`', neck]


def works_table(entries: Iterable[Entry], host: str, *more: str) -> str:
    """Return the Markdown table of the backbones that take the block.

    Args:
        entries (Iterable[Entry]): The rows; those that differ in the type alone are
            one.
        host (str): The scope of names that have none.
        *more (str): The title of a column of models and heads.
    """
    names_of: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for entry in entries:
        cells = config_lines(entry, f'{host}.NAME')
        head = f'`{entry.head}`' if entry.head else ''
        if more:
            cells.append(f'`{entry.model}`, {head}')
        elif head:
            cells[-1] += f', head {head}'
        if entry.note:
            cells[-1] += f'; {entry.note}'
        names_of[tuple(cells)].append(entry.type)
    rows = []
    for (backbone, *others), names in names_of.items():
        if len(names) == 1:
            backbone = backbone.replace(f'{host}.NAME', full_type(names[0], host))
        else:
            quoted = ', '.join(f'`{name}`' for name in names)
            backbone += f', NAME one of {quoted}'
        rows.append([backbone, *others])
    fields = '`backbone=dict(...)`: these fields and your sizes'
    necks = "`neck=dict(type='LLMBlockNeck', ...)`: beside `in_channels` and `block`"
    return markdown([fields, necks, *more], rows)


def refused_table(refused: Iterable[Refused]) -> str:
    """Return the Markdown table of the backbones that do not take it, with the reasons."""
    rows = [[f'`{backbone.type}`', backbone.reason] for backbone in refused]
    return markdown(['backbone', 'why'], rows)


def families_table() -> str:
    """Return the Markdown table of families: how they run, or why they are refused."""
    reasons = {kind: row.reason for kind, row in FAMILIES.items()}
    rows = [[reason, _names(kinds)] for reason, kinds in _inverse(reasons).items()]
    supported = [row for row in FAMILIES.values() if not row.is_refused]
    title = f'`model_type` ({len(supported)} families and those that are refused)'
    return markdown(['how', title], rows)


def wrappers_table() -> str:
    """Return the Markdown table of models whose text part is one of these families."""
    rows = [[family, _names(kinds)] for family, kinds in _inverse(WRAPPERS).items()]
    return markdown(['text part', f'`model_type` of {len(WRAPPERS)} models'], rows)


def markdown(titles: list[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    lines = [_line(titles), '|---' * len(titles) + '|']
    for cells in rows:
        lines.append(_line(cells))
    return '\n'.join(lines)


def _line(cells: Iterable[str]) -> str:
    return f'| {" | ".join(cells)} |'


def _names(kinds: Iterable[str]) -> str:
    return ', '.join(sorted(kinds))


def _inverse(table: dict[str, str]) -> dict[str, list[str]]:
    found = defaultdict(list)
    for key, value in table.items():
        found[value].append(key)
    return found


def _fields(values: dict[str, Any]) -> str:
    return ', '.join(f'{k}={_value(v)}' for k, v in values.items())


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return f'dict({_fields(value)})'
    if value is ...:
        return '...'
    return repr(value)


def _follower(type: str, **fields: Any) -> str:
    if not fields:
        return type
    return f'{type}({_fields(fields)})'


#: What stands between the markers of a name.
TABLES = {
    'families': families_table,
    'models around families': wrappers_table,
    'image backbones': partial(works_table, IMAGE, 'mmpretrain'),
    'refused image backbones': partial(refused_table, IMAGE_REFUSED),
    'video backbones': partial(works_table, VIDEO, 'mmaction', 'model and head'),
    'refused video backbones': partial(refused_table, VIDEO_REFUSED),
}


def with_tables(page: str) -> str:
    """Return a Markdown page with the tables between their markers made anew."""
    for name, make in TABLES.items():
        start = START.format(name)
        end = END.format(name)
        before, _, rest = page.partition(start)
        _, found, after = rest.partition(end)
        if found:
            page = f'{before}{start}\n\n{make()}\n\n{end}{after}'
    return page


def main(argv: list[str] | None = None) -> None:
    flags = {'--check': dict(action='store_true', help='write nothing')}
    check = build_parser(__doc__, flags).parse_args(argv).check
    differ = []
    for name in PAGES:
        before = (ROOT / name).read_text(encoding='utf-8')
        after = with_tables(before)
        if after != before:
            differ.append(name)
            if not check:
                (ROOT / name).write_text(after, encoding='utf-8')
    if check and differ:
        sys.exit(f'{", ".join(differ)}: run python tools/dev/write_tables.py')


if __name__ == '__main__':
    main()
