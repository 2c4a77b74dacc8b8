"""Reads the records of checkpoints from before the present form, and nothing else does.

There were two. ``llm_source``, in the state of a block, had the fields of the block and,
unless several necks shared it, those of its neck. ``neck_settings``, in the state of a
neck, had the neck's fields where the block had no record or was shared. Both are turned
into the present records, one in the neck and one in the block, before anything reads them.
"""

import re
from collections.abc import Mapping
from typing import Any

from lm4ve.blocks.record_text import KEY, decode_json, encode_record
from lm4ve.blocks.removed import without_removed_settings
from lm4ve.errors import CheckpointError, brief, listing

#: The old keys in the states of a block and of a neck.
BLOCK_KEY = 'llm_source'
NECK_KEY = 'neck_settings'

#: The old names of a neck's fields -> the present names.
_NECK_NAMES = {
    'residual': 'residual',
    'layout': 'layout',
    'num_extra_tokens': 'num_extra_tokens',
    'norm_first': 'norm_first',
    'index': 'index',
    'keep_others': 'keep_others',
    'branch': 'branch',
    'out_type': 'out_type',
    'norm': 'norm_cfg',
    'heads': 'block.num_heads',
    'mapper': 'mapper',
    'mapper_lora': 'lora',
    'gate': 'gate',
    'shuffle_tokens': 'shuffle_tokens',
    'place': 'place',
}
_LINEAR = dict(bias=False, depth=1, act=None, skip=None)
#: Present name -> old values that are written otherwise now.
_VALUES: dict[str, dict[Any, Any]] = {
    'layout': {'by dimensions': None},
    'branch': {'none': False, 'left out in evaluation': True},
    'mapper': {'linear': _LINEAR},
    'lora': {'none': None},
    'gate': {'none': False, 'scalar': True},
    'heads': {'all': None},
}
#: Fields for which None meant that the field has no effect.
_WITHOUT_EFFECT = ('num_extra_tokens', 'norm_first', 'block.num_heads', 'window')


def upgrade_neck(state: dict[str, Any], prefix: str) -> None:
    """Turn the old records of a neck and its block in a state into present ones.

    Args:
        state (dict): Changed in place, unless it has present ones, or is none of a neck.
        prefix (str): The neck's name in it, with a dot.

    Raises:
        CheckpointError: A record is damaged, or has what this version no longer has.
    """
    fields = {}
    for key in state:
        # Within wrappers of the block, too.
        if key.startswith(f'{prefix}block.') and key.endswith(f'.{BLOCK_KEY}'):
            fields.update(_decode_old(state[key], key))
    if prefix + NECK_KEY in state:
        stored = state.pop(prefix + NECK_KEY)
        fields.update(_decode_old(stored, prefix + NECK_KEY))
    is_recorded = prefix + KEY in state or f'{prefix}block.{KEY}' in state
    is_of_neck = any(key.startswith(f'{prefix}mapper_in.') for key in state)
    if not is_recorded and (fields or is_of_neck):
        # The oldest have no record of controls: nothing is compared then.
        state[prefix + KEY] = encode_record(_neck_fields(fields))
    upgrade_block(state, f'{prefix}block.')


def upgrade_block(state: dict[str, Any], prefix: str) -> None:
    """Turn the old record of a block in a state into a present one, without a neck's fields.

    Args:
        state (dict): Changed in place, unless it has no old one.
        prefix (str): The block's name in it, with a dot.

    Raises:
        CheckpointError: See :func:`upgrade_neck`; or the state has weights of heads in
            an order that is gone.
    """
    if prefix + BLOCK_KEY not in state:
        return
    stored = state.pop(prefix + BLOCK_KEY)
    fields = _decode_old(stored, prefix + BLOCK_KEY)
    _check_order_of_heads(fields, [name for name in state if name.startswith(prefix)])
    state[prefix + KEY] = encode_record(_block_fields(fields))


def _decode_old(stored: Any, key: str) -> dict[str, Any]:
    """Return the fields of an old record.

    Raises:
        CheckpointError: It is damaged, of no known version, or has what is gone.
    """
    fields = without_removed_settings(decode_json(stored, f"'{key}' of the checkpoint"))
    if fields.get('format', 1) not in (1, 2):
        raise CheckpointError(
            f"'{key}' of the checkpoint is damaged: format={brief(repr(fields['format']))}, "
            'expected 1 or 2. Fix: copy it again.'
        )
    return fields


def _neck_fields(old: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a neck among those of old records, by their present names."""
    present = {}
    for name, value in old.items():
        if name in _NECK_NAMES:
            present[_NECK_NAMES[name]] = value
    if 'norm_cfg' in present:
        present['norm_cfg'] = _present_norm(str(present['norm_cfg']))
    return _present_values(present)


def _present_norm(text: str) -> Any:
    """Return the present description of a norm, of one such as 'LayerNorm(eps=1e-06)'.

    Text of another form equals no norm, and is returned.
    """
    if text == 'none':
        return None
    match = re.fullmatch(r'(\w+)\(eps=([\d.e+-]+|None)\)', text)
    if match is None:
        return text
    kind, eps = match.groups()
    # sync_bn had replaced it. Both kinds have the same weights and results.
    kind = kind.replace('SyncBatchNorm', 'BatchNorm1d')
    try:
        return dict(type=kind, eps=None if eps == 'None' else float(eps))
    except ValueError:
        return text


def _block_fields(old: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a block in an old record, by their present names."""
    present = {}
    for name, value in old.items():
        if name not in _NECK_NAMES:
            present[name] = value
    # What older versions did, or did not write where it was the default.
    present.pop('format', None)
    present.setdefault('window', False)
    present.setdefault('kv_heads', 'grouped')
    present['heads'] = present.pop('kept_heads', None)
    return _present_values(present)


def _present_values(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields with values as they are written now."""
    present = {}
    for name, value in fields.items():
        if value is None and name in _WITHOUT_EFFECT:
            continue
        if isinstance(value, str):
            value = _VALUES.get(name, {}).get(value, value)
        present[name] = value
    return present


def _check_order_of_heads(fields: Mapping[str, Any], names: list[str]) -> None:
    """Refuse weights of tiled heads that are in another order than the language model's.

    Args:
        fields (Mapping): The fields of a block's old record.
        names (list[str]): The names of the block's tensors in its state.

    Raises:
        CheckpointError: They are of a version that moved query heads.
    """
    if fields.get('format', 1) >= 2 or fields.get('kv_heads') != 'tiled':
        return
    moved = [name for name in names if '.q_proj.' in name or '.o_proj.' in name]
    if moved:
        raise CheckpointError(
            f"The checkpoint's {listing(moved)} were made with block.kv_heads='tiled' by an "
            'lm4ve that moved query heads, and this one does not. Fix: train again, or make '
            'the release again.'
        )
