"""What a checkpoint records of a neck, who writes it, and how it is compared.

Settings that no tensor shows, but the results depend on, are the fields of
:class:`NeckRecord`. The neck fills it when it is built, each of its parts adds its own
fields (``Part.add_to``), and ``LLMBlockInsert`` adds the place.

A state dict has the record in one of two places:

- in the block's own record, ``neck.block.llm_source``, where the block has one (an
  ``LLMBlock``): :func:`write_records` copies the fields into ``block.source``, which
  the block writes and compares (``lm4ve/blocks/provenance.py``);
- in ``neck.neck_settings``, where the block has no record, or serves several necks, so
  that its record has no room for the settings of each. The neck writes and compares it.

A new field of a neck also has a row in ``SETTINGS`` of ``lm4ve/blocks/provenance.py``,
which names it in messages; a record with a field that is not there is refused.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
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
        queries (str | dict): 'none', or the fields of ``queries``.
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
    queries: str | dict[str, Any] = 'none'
    gate: str = 'none'
    shuffle_tokens: bool = False
    place: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields in the order in which checkpoints have them."""
        fields = asdict(self)
        if self.place is None:
            del fields['place']
        return fields


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


def write_record(neck: Any) -> None:
    """Let a neck's state dict have its record: in the block's, or else in its own.

    Args:
        neck (LLMBlockNeck): If it writes its own record already, it goes on to do so.
    """
    if NECK_KEY in neck._buffers:
        return
    if isinstance(neck.block, ProvenanceMixin):
        neck.block.source.update(neck.settings())
    else:
        _write_own_record(neck)


def write_records(necks: Sequence[Any]) -> None:
    """Let the state dict of an encoder have the records of all its necks.

    Args:
        necks (Sequence[LLMBlockNeck]): Where some share a block, each writes its own.
    """
    blocks = {id(neck.block) for neck in necks}
    is_shared = len(blocks) < len(necks)
    for neck in necks:
        if is_shared:
            _write_own_record(neck)
        else:
            write_record(neck)


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
    """Compare the record that a neck has written by itself, if there is one.

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
        compare_settings(theirs, neck.settings())
    elif NECK_KEY in neck._buffers:  # older checkpoints lack it
        state[prefix + NECK_KEY] = neck._buffers[NECK_KEY]


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
