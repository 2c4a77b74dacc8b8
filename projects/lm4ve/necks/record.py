"""What a checkpoint records of a neck, who writes it, and how it is compared.

Settings that no tensor shows, but the results depend on, are the fields of
:class:`NeckRecord`. The neck fills it when it is built (``NeckFields.to_record``), each
of its parts adds its own fields (``Part.add_to``), and ``LLMBlockInsert`` adds the
place. After each of these steps :func:`write_record` is called, which puts the record
where state dicts have it.

That is one of two places:

- the block's own record, ``neck.block.llm_source``, where the block has one (an
  ``LLMBlock``): the fields are copied into ``block.source``, which the block writes and
  compares (``lm4ve/blocks/provenance.py``);
- ``neck.neck_settings``, where the block has no record, or serves several necks, so
  that its record has no room for the settings of each. The neck writes it whenever a
  state dict is made (:func:`_save_settings`), and compares it
  (:func:`check_own_record`).

A new field of a neck also has a row in ``SETTINGS`` of ``lm4ve/blocks/provenance.py``,
which names it in messages; a record with a field that is not there is refused.
"""

import weakref
from dataclasses import asdict, dataclass, fields
from typing import Any

from torch import nn

from lm4ve.blocks.provenance import (
    NECK_KEY,
    SOURCE_KEY,
    ProvenanceMixin,
    compare_settings,
    declare_record,
    decode_source,
    encode_source,
    take_record,
)
from lm4ve.errors import CheckpointError
from lm4ve.necks.layouts import DEFAULTS


@dataclass
class NeckRecord:
    """The settings of a neck, in the words of the checkpoint.

    A setting without effect is None, which equals any.

    Attributes:
        residual (str): The field of the neck.
        layout (str): The field, or 'by dimensions'.
        num_extra_tokens (int, optional): The field, where tokens are averaged or
            shuffled.
        norm_first (bool, optional): The field, where tokens are averaged.
        index (int): The field.
        keep_others (bool): The field.
        branch (str): 'none', or 'left out in evaluation'.
        out_type (str): The field.
        norm (str): The norm's class and epsilon, or 'none'.
        heads (int, optional): Attention heads of a block that is a control.
        mapper (str | dict): 'linear', or the fields of ``mapper``.
        mapper_lora (str | dict): 'none', or what was adapted.
        gate (str): 'none', 'scalar' or 'tanh'.
        shuffle_tokens (bool): The field.
        place (str, optional): The place of an inserted neck in its encoder.
    """

    residual: str
    layout: str
    num_extra_tokens: int | None
    norm_first: bool | None
    index: int
    keep_others: bool
    branch: str
    out_type: str
    norm: str
    heads: int | None
    mapper: str | dict[str, Any] = 'linear'
    mapper_lora: str | dict[str, Any] = 'none'
    gate: str = 'none'
    shuffle_tokens: bool = False
    place: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields in the order in which checkpoints have them."""
        fields = asdict(self)
        if self.place is None:
            del fields['place']
        return fields


_FIELDS = [field.name for field in fields(NeckRecord)]


def describe_layout(layout: str | None) -> str:
    """Describe a layout; one that is the default of its dimensions equals none."""
    if layout is None or layout in DEFAULTS.values():
        return 'by dimensions'
    return layout


def describe_norm(norm: nn.Module | None) -> str:
    """Describe a norm by its class and epsilon, as ``LayerNorm(eps=1e-06)``."""
    if norm is None:
        return 'none'
    name = type(norm).__name__
    eps = getattr(norm, 'eps', None)
    return f'{name}(eps={eps})'


#: Blocks with a record of their own -> the necks that were built on each.
_necks_of: 'weakref.WeakKeyDictionary[nn.Module, weakref.WeakSet[nn.Module]]' = (
    weakref.WeakKeyDictionary()
)


def write_record(neck: Any) -> None:
    """Let a neck's state dict have its record: in the block's, or else in its own.

    Args:
        neck (LLMBlockNeck): A neck whose record is new or has changed. If its block
            serves other necks too, all of them write their own records from now on.
    """
    if not isinstance(neck.block, ProvenanceMixin):
        _write_own_record(neck)
        return
    necks = _necks_of.setdefault(neck.block, weakref.WeakSet())
    necks.add(neck)
    # A copy of a neck that shared its block goes on to write its own.
    if len(necks) == 1 and NECK_KEY not in neck._buffers:
        neck.block.source.update(neck.settings())
        return
    for sharing in necks:
        _write_own_record(sharing)
    for name in _FIELDS:
        neck.block.source.pop(name, None)


def _write_own_record(neck: Any) -> None:
    """Let a neck's state dict have its record under ``neck_settings``, from now on."""
    if NECK_KEY in neck._buffers:
        return
    declare_record(neck, NECK_KEY)
    neck.register_state_dict_post_hook(_save_settings)


def _save_settings(
    neck: Any, state: dict[str, Any], prefix: str, metadata: Any
) -> None:
    """Write a neck's settings, as they are now, into its state dict.

    torch calls it after it has collected the tensors; ``metadata`` is not read.
    """
    state[prefix + NECK_KEY] = encode_source(neck.settings())


def check_own_record(neck: Any, state: dict[str, Any], prefix: str) -> None:
    """Compare the record of a neck in a state with the neck that writes its own.

    Args:
        neck (LLMBlockNeck): The neck that loads a state.
        state (dict): The state; the empty buffer takes the record's place in it.
        prefix (str): The neck's name in the state, with a dot.

    Raises:
        CheckpointError: It was made with other settings.
    """
    record = take_record(neck, state, prefix, NECK_KEY)
    if record is not None:
        theirs = decode_source(record, prefix + NECK_KEY)
        _compare(theirs, neck)
    elif NECK_KEY in neck._buffers:
        state[prefix + NECK_KEY] = neck._buffers[NECK_KEY]
        _compare_with_record_of_block(neck, state, prefix)


def _compare_with_record_of_block(
    neck: Any, state: dict[str, Any], prefix: str
) -> None:
    """Compare the settings that a neck with a block of its own has left in the block's record.

    The arguments and the error are those of :func:`check_own_record`. Nothing is
    compared where the state has no such record, as older ones of a control.
    """
    key = f'{prefix}block.{SOURCE_KEY}'
    if key not in state:
        return
    source = decode_source(state[key], key)
    theirs = {name: source[name] for name in _FIELDS if name in source}
    _compare(theirs, neck)


def _compare(theirs: dict[str, Any], neck: Any) -> None:
    """Refuse the record of a neck that had other settings.

    Raises:
        CheckpointError: A setting differs.
    """
    mine = neck.settings()
    for record in (theirs, mine):
        # Older records name the norm that sync_bn had put there. Both kinds of batch
        # norm have the same weights, and the same results in evaluation.
        if 'norm' in record:
            norm = str(record['norm'])
            record['norm'] = norm.replace('SyncBatchNorm', 'BatchNorm1d')
    compare_settings(theirs, mine)


def check_kind_of_block(neck: Any, state: dict[str, Any], prefix: str) -> None:
    """Refuse a state that was saved with a frozen block for a neck without, or the reverse.

    A frozen block (``LLMBlock``) leaves a record of its weights in the state; a trained
    block, such as a control, leaves none. A state without the neck's first mapper is
    not a neck's own, for example one of adapters alone, and passes.

    Args:
        neck (LLMBlockNeck): The neck that loads a state.
        state (dict): The state.
        prefix (str): The neck's name in the state, with a dot.

    Raises:
        CheckpointError: The state has the record, but the neck's block is no
            ``LLMBlock``; or the block is one, and the state has no record.
    """
    mapper_keys = [f'{prefix}mapper_in.{name}' for name in neck.mapper_in.state_dict()]
    is_state_of_neck = bool(mapper_keys) and all(key in state for key in mapper_keys)
    if not is_state_of_neck:
        return
    key = f'{prefix}block.{SOURCE_KEY}'
    is_recorded = key in state
    # Of all blocks only LLMBlock has this base class, which writes the record.
    expects_record = isinstance(neck.block, ProvenanceMixin)
    if is_recorded == expects_record:
        return
    verb = 'lacks' if expects_record else 'has'
    raise CheckpointError(
        f"The checkpoint {verb} '{key}', the record of frozen weights, but "
        f'model.neck.block of the config is a {type(neck.block).__name__}.'
    )
