"""``lm4ve_config.json`` of a saved model: the one place that reads and writes it.

A stranger may have written the file. So it names no code: a block is one of
:data:`BLOCKS`, every field stands in a table with the types of its value, and what is not
there is refused. Blocks and necks are made by calling their classes, so that nothing of
the file reaches a registry, which would import and call what a ``type`` names.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from types import NoneType
from typing import Any

from torch import nn

from lm4ve.blocks.llm_block import LLMBlock
from lm4ve.blocks.mlp_block import MLPBlock
from lm4ve.blocks.removed import without_removed
from lm4ve.errors import CheckpointError, UserError, brief, check, did_you_mean, require
from lm4ve.llm.sources import FileSource

CONFIG_FILE = 'lm4ve_config.json'
FORMAT = 1
#: Bytes of a file that is read; ours have a few thousand.
_LARGEST = 4 << 20

#: The fields of a file -> the types of their values.
_FIELDS = {
    'format': (int,),
    'lm4ve': (str,),
    'model': (str,),
    'after': (str, list, NoneType),
    'index': (int, str),
    'before': (str, list, NoneType),
    'share_block': (bool,),
    'neck': (dict, list),
    'mask': (dict,),
    'block': (dict, NoneType),
    'record': (dict, NoneType),
    'frozen_encoder': (str, NoneType),
    'host': (dict,),
}
#: Those that a file may lack: older ones do, and models with one place.
_OPTIONAL = ('before', 'share_block', 'mask', 'host')
#: Those of them that are arguments of :func:`lm4ve.wrap`, beside the block.
_ARGUMENTS = ('after', 'index', 'before', 'share_block', 'neck', 'mask')

#: The fields of a neck -> the types of their values. The neck parses the values.
_NECK_FIELDS = {
    'in_channels': (int,),
    'norm_cfg': (dict, NoneType),
    'residual': (str,),
    'out_type': (str,),
    'low_rank': (str,),
    'with_cp': (bool,),
    'layout': (str, NoneType),
    'num_extra_tokens': (int,),
    'index': (int,),
    'keep_others': (bool,),
    'branch': (bool, dict, NoneType),
    'guard': (bool,),
    'norm_first': (bool,),
    'mapper': (dict, NoneType),
    'lora': (dict, NoneType),
    'gate': (bool, str),
    'shuffle_tokens': (bool,),
}
#: How mappers start. It has acted before they were saved, so a file does not have it, and
#: that of an older file is passed over.
_INITIAL = 'init_cfg'
#: The blocks that a file may name.
BLOCKS: dict[str, type[nn.Module]] = {'LLMBlock': LLMBlock, 'MLPBlock': MLPBlock}
#: Their fields -> the types of their values. The block parses the values.
_BLOCK_FIELDS: dict[str, dict[str, tuple[type, ...]]] = {
    'LLMBlock': {
        'checkpoint': (str, NoneType),
        'layers': (list,),
        'pretrained': (bool, str),
        'seed': (int,),
        'trainable': (str,),
        'causal': (bool, dict),
        'window': (bool,),
        'rotary': (bool, str),
        'final_norm': (bool,),
        'dtype': (str,),
        'arch': (dict, NoneType),
        'lora': (dict, NoneType),
        'causal_suffix': (int,),
        'kv_heads': (str,),
        'heads': (list, NoneType),
    },
    'MLPBlock': {'embed_dims': (int,)},
}
#: The only field whose dict may have others in it: a config of transformers, built by
#: :func:`lm4ve.llm.foreign_config.build_foreign_config`, which drops what names code.
_ARCH = 'arch'


@dataclass(frozen=True)
class SavedBlock:
    """The block that a file names.

    Attributes:
        type (str): What the file says. A file cannot have another than :data:`BLOCKS`
            built.
        fields (dict): The arguments of its class, empty for other types.
    """

    type: str
    fields: dict[str, Any]

    @property
    def is_known(self) -> bool:
        """Whether the block is one of :data:`BLOCKS`."""
        return self.type in BLOCKS

    @property
    def checkpoint(self) -> str | None:
        """The file's name of the language model, if there is one."""
        checkpoint: str | None = self.fields.get('checkpoint')
        return checkpoint

    def build(self, checkpoint: str | FileSource | None) -> nn.Module:
        """Build the block.

        Args:
            checkpoint (str | FileSource, optional): Where the language model of
                :attr:`checkpoint` is.
        """
        fields = dict(self.fields)
        if checkpoint is not None:
            fields['checkpoint'] = checkpoint
        return BLOCKS[self.type](**fields)


@dataclass(frozen=True)
class FolderConfig:
    """What a file says; every value is of the type that its field has.

    Attributes:
        model (str): The class of the model that was saved, for messages.
        arguments (dict): Arguments of :func:`lm4ve.wrap`, but the block; ``neck`` has
            those of the neck, or a list has those of several.
        block (SavedBlock | None): None if the block was given as a module.
        fingerprint (str | None): That of the block's weights, from its record.
        frozen_encoder (str | None): The fingerprint of the encoder's frozen weights.
        host (dict): See :func:`lm4ve.necks.host_settings.settings_of`.
    """

    model: str
    arguments: dict[str, Any]
    block: SavedBlock | None
    fingerprint: str | None
    frozen_encoder: str | None
    host: dict[str, Any]


def read_config(folder: Path) -> FolderConfig:
    """Read the file of a folder.

    Raises:
        CheckpointError: There is none, it is damaged or of another format, or it has
            what a file cannot have.
    """
    path = folder / CONFIG_FILE
    # Not a pipe or a device, which would have no end.
    if not path.is_file() or path.stat().st_size > _LARGEST:
        raise CheckpointError(
            f"'{path}' is missing, or no file of lm4ve.save_pretrained. Fix: name the "
            'folder that it wrote.'
        )
    try:
        content = json.loads(path.read_bytes())
        return parse_config(content)
    except UserError as e:
        raise CheckpointError(f"'{path}': {e}") from e
    except (ValueError, RecursionError) as e:
        raise CheckpointError(f"'{path}' is damaged: {e}.") from e


def parse_config(content: Any) -> FolderConfig:
    """Parse the content of a file.

    Raises:
        UserError: A field is missing or unknown, or has no such value.
    """
    require(isinstance(content, dict), f'it is {brief(content)}, expected its fields.')
    found = content.get('format')
    require(
        found == FORMAT,
        f'it has format {brief(repr(found))}, and this version of lm4ve reads format '
        f'{FORMAT}. Fix: a newer lm4ve.',
    )
    fields = _parse_fields('', content, _FIELDS)
    for name in _FIELDS:
        require(name in fields or name in _OPTIONAL, f'{name} is missing.')
    arguments = {name: fields[name] for name in _ARGUMENTS if name in fields}
    neck = arguments['neck']
    if isinstance(neck, list):
        arguments['neck'] = [_parse_neck(options) for options in neck]
    else:
        arguments['neck'] = _parse_neck(neck)
    for name in ('after', 'before', 'mask'):
        _check_texts(name, arguments.get(name))
    record = fields['record'] or {}
    fingerprint = record.get('fingerprint')
    check('record.fingerprint', fingerprint, kind=(str, NoneType))
    return FolderConfig(
        model=fields['model'],
        arguments=arguments,
        block=_parse_block(fields['block']),
        fingerprint=fingerprint,
        frozen_encoder=fields['frozen_encoder'],
        host=fields.get('host', {}),
    )


def _parse_neck(options: Any) -> dict[str, Any]:
    """Return the arguments of a neck, but the block.

    Raises:
        UserError: A field is unknown, or its value is of another type.
    """
    check('neck', options, kind=dict)
    given = {name: value for name, value in options.items() if name != _INITIAL}
    fields = _parse_fields('neck.', without_removed('neck', given), _NECK_FIELDS)
    # Loaded weights are not initialized.
    fields[_INITIAL] = None
    return fields


def _parse_block(fields: dict[str, Any] | None) -> SavedBlock | None:
    """Return the block of a file; None if it has none.

    Of a block that is none of :data:`BLOCKS` the name alone is kept.

    Raises:
        UserError: A field is unknown, or its value is of another type.
    """
    if fields is None:
        return None
    arguments = dict(fields)
    kind = arguments.pop('type', None)
    check('block.type', kind, kind=str)
    if kind not in BLOCKS:
        return SavedBlock(kind, {})
    given = without_removed('block', arguments)
    return SavedBlock(kind, _parse_fields('block.', given, _BLOCK_FIELDS[kind]))


def _parse_fields(
    prefix: str, fields: Mapping[str, Any], table: Mapping[str, tuple[type, ...]]
) -> dict[str, Any]:
    """Return fields whose names and types of values are those of a table.

    Args:
        prefix (str): What stands before their names in messages.
        fields (Mapping): The fields.
        table (Mapping): Name -> types.

    Raises:
        UserError: A field is unknown, or its value is of another type.
    """
    parsed = {}
    for name, value in fields.items():
        field = f'{prefix}{name}'
        if name not in table:
            raise UserError(f'{brief(field)} is unknown.{did_you_mean(name, table)}')
        check(field, value, kind=table[name])
        if prefix and name != _ARCH:
            _check_flat(field, value)
        parsed[name] = value
    return parsed


def _check_flat(field: str, value: Any) -> None:
    """Check that a value has no dict within a dict or a list.

    Raises:
        UserError: It has.
    """
    parts: list[Any] = []
    if isinstance(value, dict):
        parts = list(value.values())
    elif isinstance(value, list):
        parts = list(value)
    for part in parts:
        if isinstance(part, list):
            _check_flat(field, part)
        is_flat = not isinstance(part, dict)
        require(is_flat, f'{field} has {brief(part)}, expected no fields there.')


def _check_texts(field: str, value: Any) -> None:
    """Check that a list or a dict has texts alone.

    Raises:
        UserError: It has not.
    """
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for text in value:
            check(field, text, kind=str)


# ------------------------------------------------------------------------ writing
def describe_arguments(arguments: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the arguments of :func:`lm4ve.wrap` as a file has them.

    Args:
        arguments (Mapping): See :func:`lm4ve.necks.wrapping.build_necks_at`, with
            ``block``.
        folder (Path): The folder that gets the file.

    Raises:
        UserError: A value is no plain data.
    """
    described = {}
    for name in _ARGUMENTS:
        if name in arguments:
            described[name] = arguments[name]
    neck = described['neck']
    if isinstance(neck, Mapping):
        described['neck'] = _describe_neck(neck)
    else:
        described['neck'] = [_describe_neck(options) for options in neck]
    described['block'] = _describe_block(arguments['block'], folder)
    plain: dict[str, Any] = _to_plain('wrap', described)
    return plain


def _describe_neck(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a neck, without what a file cannot have."""
    return {name: value for name, value in options.items() if name != _INITIAL}


def _describe_block(
    block: Mapping[str, Any] | None, folder: Path
) -> dict[str, Any] | None:
    """Return the config of a block; of a block that is not ours its type alone.

    Args:
        block (Mapping, optional): The config. None: the block was given as a module.
        folder (Path): The folder that gets the file. A checkpoint in it is named from
            there, another one by its whole path.
    """
    if block is None:
        return None
    kind = _type_name(block['type'])
    if kind not in BLOCKS:
        return dict(type=kind)
    described = {**block, 'type': kind}
    checkpoint = block.get('checkpoint')
    if checkpoint is not None:
        described['checkpoint'] = _describe_checkpoint(str(checkpoint), folder)
    return described


def _type_name(kind: Any) -> str:
    """Return the name of a block's type, which a config may also have as the class."""
    if isinstance(kind, str):
        return kind.removeprefix('lm4ve.')
    name = str(getattr(kind, '__name__', kind))
    if BLOCKS.get(name) is kind:
        return name
    return f'{getattr(kind, "__module__", "")}.{name}'


def _describe_checkpoint(checkpoint: str, folder: Path) -> str:
    """Return the name of a checkpoint by which it is found from any working directory."""
    path = Path(checkpoint).expanduser()
    if not path.exists():
        return checkpoint  # a hub id, or of a package
    inside = path.resolve()
    root = folder.resolve()
    if inside.is_relative_to(root):
        return inside.relative_to(root).as_posix()
    return str(path.absolute())


def _to_plain(field: str, value: Any) -> Any:
    """Return a value as JSON gives it back.

    Raises:
        UserError: It is of a type that JSON does not have.
    """
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    if isinstance(value, Mapping):
        return {str(k): _to_plain(f'{field}: {k}', v) for k, v in value.items()}
    if isinstance(value, Sequence):
        return [_to_plain(field, part) for part in value]
    raise UserError(
        f'{field}={brief(repr(value))} cannot be written as JSON. Fix: numbers, texts, '
        'lists and dicts.'
    )
