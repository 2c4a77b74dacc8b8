"""Which frozen weights a checkpoint was made with.

Frozen weights are not stored. Instead a block adds a record of them to its state
dict: where they came from, which layers, a fingerprint, and the settings that no tensor
shows but the results depend on. Loading a record into a block with other frozen weights
or settings is an error, raised here because MMEngine's loading is not strict and only
logs what does not fit.
"""

import json
import logging
import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from lm4ve.blocks.frozen import frozen_tensors
from lm4ve.blocks.heads import ALL, GROUPED, TILED
from lm4ve.blocks.record import (
    FIELD_TYPES,
    FORMATS,
    OPTIONAL_FIELDS,
    ORDERED_HEADS,
    RECORDED_DTYPES,
    describe,
)
from lm4ve.blocks.removed import without_removed_settings
from lm4ve.errors import CheckpointError, brief, listing
from lm4ve.llm.fingerprint import fingerprint
from lm4ve.llm.sources import FileSource

#: Key of the record in a block's state dict.
SOURCE_KEY = 'llm_source'
#: Key of a neck's record in its state dict, where its block has none.
NECK_KEY = 'neck_settings'
#: Prefix of frozen tensors in the state dict of a self-contained release.
EMBEDDED_PREFIX = 'embedded.'
#: Settings that a record holds -> the config field of each. Older records lack them.
SETTINGS = dict(
    causal='model.neck.block.causal',
    causal_suffix='model.neck.block.causal_suffix',
    window='model.neck.block.window',
    rotary='model.neck.block.rotary',
    final_norm='model.neck.block.final_norm',
    lora='model.neck.block.lora',
    residual='model.neck.residual',
    layout='model.neck.layout',
    num_extra_tokens='model.neck.num_extra_tokens',
    norm_first='model.neck.norm_first',
    index='model.neck.index',
    keep_others='model.neck.keep_others',
    branch='model.neck.branch',
    out_type='model.neck.out_type',
    norm='model.neck.norm_cfg',
    mapper='model.neck.mapper',
    mapper_lora='model.neck.lora',
    gate='model.neck.gate',
    shuffle_tokens='model.neck.shuffle_tokens',
    heads='model.neck.block.num_heads',
    kv_heads='model.neck.block.kv_heads',
    kept_heads='model.neck.block.heads',
    place="LLMBlockInsert's place",
)

#: Settings that a record has only where they are not this.
UNWRITTEN = dict(kv_heads=GROUPED, kept_heads=ALL)


def declare_record(module: nn.Module, key: str) -> None:
    """Make a key of a module's state dict one that torch's own tools find in the module.

    ``torch.distributed.checkpoint`` looks every key up as an attribute, and sends a
    state from one process to the parameters and buffers of the others. So there is a
    buffer of that name. It is empty: records differ in length, and DDP and averages of
    weights copy buffers. The record itself is written when a state dict is made.

    Args:
        module (nn.Module): The module that writes the record.
        key (str): :data:`SOURCE_KEY` or :data:`NECK_KEY`.
    """
    module.register_buffer(key, torch.empty(0, dtype=torch.uint8))


def take_record(module: nn.Module, state: dict[str, Any], prefix: str, key: str) -> Any:
    """Take a module's record out of a state, and leave the empty buffer in its place.

    Args:
        module (nn.Module): The module that loads the state.
        state (dict): Changed in place, unless it has no such record.
        prefix (str): The module's name in the state, with a dot.
        key (str): See :func:`declare_record`.

    Returns:
        Tensor | None: The record, if there is one.
    """
    record = state.pop(prefix + key, None)
    if record is not None and key in module._buffers:
        state[prefix + key] = module._buffers[key]
    return record


def encode_source(source: Mapping[str, Any]) -> Tensor:
    """Write a record as uint8: distributed training and EMA walk over tensors only."""
    return torch.tensor(list(json.dumps(source).encode()), dtype=torch.uint8)


def decode_source(record: Tensor, key: str = SOURCE_KEY) -> dict[str, Any]:
    """Read a record.

    Args:
        record (Tensor): uint8, from a state dict.
        key (str): Its key there, for the message.

    Raises:
        CheckpointError: The record is damaged, or has fields that this version does not
            know, or no longer has.
    """
    try:
        # [:], since bytes(10**12) would be as long.
        source: Any = json.loads(bytes(record[:].tolist()))
    except (ValueError, LookupError, TypeError, RecursionError) as e:
        raise CheckpointError(
            f"'{key}' of the checkpoint is damaged ({type(e).__name__}: {e}). "
            'Fix: copy it again.'
        ) from e
    if isinstance(source, dict):
        source = without_removed_settings(source)
    is_of_neck = key.rpartition('.')[2] == NECK_KEY
    defect = _find_defect(source, {} if is_of_neck else FIELD_TYPES)
    if defect:
        raise CheckpointError(
            f"'{key}' of the checkpoint is damaged, or of a newer lm4ve: {defect}. "
            'Fix: copy it again, or update lm4ve.'
        )
    found: dict[str, Any] = source
    return found


def _find_defect(source: Any, field_types: Mapping[str, Any]) -> str:
    """Describe what is wrong with a record, as the rest of a sentence; '' if nothing.

    Args:
        source: The record as it was read.
        field_types (Mapping): The fields that it must have -> their types. A neck's
            record has none of these.
    """
    if not isinstance(source, dict) or not source:
        return f'it is {brief(source)}, expected its fields'
    for name, kind in field_types.items():
        if name in source:
            if not isinstance(source[name], kind):
                return f'its field {name}={brief(source[name])} has another type'
        elif name not in OPTIONAL_FIELDS:
            return f"it lacks the field '{name}'"
    unknown = source.keys() - field_types.keys() - SETTINGS.keys()
    if unknown:
        return f'it has the unknown field(s) {listing(sorted(unknown))}'
    if source.get('format', 1) not in FORMATS:
        return f'its format={source["format"]}, expected one of {listing(FORMATS)}'
    if source.get('dtype', 'float32') not in RECORDED_DTYPES:
        known = ', '.join(RECORDED_DTYPES)
        return f'its dtype={source["dtype"]!r} is none of {known}'
    return ''


def compare_settings(theirs: Mapping[str, Any], mine: Mapping[str, Any]) -> None:
    """Refuse a checkpoint whose model computes something else with the same weights.

    Args:
        theirs, mine (Mapping): Records; what one of them lacks is not compared.

    Raises:
        CheckpointError: One of :data:`SETTINGS` has another value, or a field of the
            language model's config.
    """
    for name, field in SETTINGS.items():
        their_value = theirs.get(name, UNWRITTEN.get(name))
        my_value = mine.get(name, UNWRITTEN.get(name))
        # None, a setting without effect, equals any.
        if their_value is not None and my_value is not None:
            _check_equal(field, their_value, my_value)
    my_config = mine.get('config', {})
    for name, their_value in theirs.get('config', {}).items():
        if name in my_config:
            field = f"the language model's {name}"
            _check_equal(field, their_value, my_config[name])


def _check_equal(field: str, theirs: Any, mine: Any) -> None:
    """Refuse a checkpoint in which a field has another value.

    Raises:
        CheckpointError: It names the field and both values.
    """
    if not agree(theirs, mine):
        raise CheckpointError(
            f'The checkpoint was made with {field}={theirs!r}, the config has '
            f"{mine!r}. Fix: set the checkpoint's value."
        )


def agree(a: Any, b: Any) -> bool:
    """Return whether two values are equal; of dicts only the keys that both have are compared.

    Numbers may differ by the rounding of GGUF, which stores them in 32 bits.
    """
    if isinstance(a, dict) and isinstance(b, dict):
        return all(agree(a[key], b[key]) for key in a if key in b)
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return math.isclose(a, b, rel_tol=1e-6)
    return bool(a == b)


class ProvenanceMixin(nn.Module):
    """A module whose state dict records where its frozen weights come from.

    Attributes:
        source (dict): The record: name, layers, fingerprint, ..., ``dtype`` and
            :data:`SETTINGS`.
        checkpoint (str | FileSource | None): None lets a self-contained release file bring
            the frozen weights along.
    """

    source: dict[str, Any]
    checkpoint: str | FileSource | None

    def __init__(self) -> None:
        super().__init__()
        declare_record(self, SOURCE_KEY)

    def frozen_state(self) -> dict[str, Tensor]:
        """Return the frozen tensors, for a self-contained release file."""
        state = {}
        for name, tensor in frozen_tensors(self).items():
            state[EMBEDDED_PREFIX + name] = tensor.detach().cpu()
        return state

    def _save_to_state_dict(
        self, state: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        """Write the module's own tensors and the record into a state."""
        super()._save_to_state_dict(state, prefix, keep_vars)
        state[prefix + SOURCE_KEY] = encode_source(self.source)

    def _load_from_state_dict(
        self, state: dict[str, Any], prefix: str, *others: Any
    ) -> None:
        """Compare the record of a state with this block's, then load the tensors that train.

        Raises:
            CheckpointError: See :meth:`_load_record`.
        """
        record = take_record(self, state, prefix, SOURCE_KEY)
        embedded = _take_embedded(state, prefix)
        if record is not None:
            source = decode_source(record, prefix + SOURCE_KEY)
            stored = [key for key in state if key.startswith(prefix)]
            _check_order_of_heads(source, stored)
            self._load_record(source, embedded)
        super()._load_from_state_dict(state, prefix, *others)

    def _load_record(self, source: dict[str, Any], embedded: dict[str, Tensor]) -> None:
        """Compare a checkpoint's record with this block's; load embedded weights if need be.

        Args:
            source (dict): The record.
            embedded (dict): The frozen tensors that the checkpoint brings along.

        Raises:
            CheckpointError: The settings differ; or the frozen weights, and the
                checkpoint does not bring weights that fit.
        """
        digest = source.pop('embedded', None)
        mine = frozen_tensors(self)
        differs = bool(mine) and source['fingerprint'] != self.source['fingerprint']
        if differs:
            self._check_may_replace(source, embedded)
            _check_order_of_heads(source, embedded)
            _check_same_shapes(mine, embedded)
        if embedded and digest:
            _check_embedded(embedded, digest)
        self._follow_old_record(source)
        compare_settings(source, self.source)
        self._warn_of_dtype(source)
        if differs:
            for name, tensor in frozen_tensors(self).items():
                # A new tensor: copies and fused models share the values of this one.
                tensor.data = embedded[name].detach().to(tensor, copy=True)
            dtype = self.source['dtype']
            self.source = {**self.source, **source, 'dtype': dtype}

    def _check_may_replace(
        self, source: dict[str, Any], embedded: dict[str, Tensor]
    ) -> None:
        """Refuse other frozen weights, unless they come along and none are configured.

        Raises:
            CheckpointError: It describes both.
        """
        if self.checkpoint is None and embedded:
            return
        raise CheckpointError(
            'The checkpoint was made with other frozen weights than the config asks '
            f'for. Checkpoint: {describe(source)}. Config: {describe(self.source)}. '
            'Fix: set model.neck.block.checkpoint, layers, pretrained and seed to the '
            "checkpoint's."
        )

    def _follow_old_record(self, source: dict[str, Any]) -> None:
        """Switch windows off for a checkpoint that was made before blocks had windows."""
        if 'window' in source or not self.source['window']:
            return
        self.source['window'] = False
        print_log(
            'The checkpoint was made without windows: model.neck.block.window is False '
            'now.',
            logger='current',
            level=logging.WARNING,
        )

    def _warn_of_dtype(self, source: Mapping[str, Any]) -> None:
        """Warn that a checkpoint was made in another type than this model computes in."""
        dtype = self.source['dtype']
        recorded = source.get('dtype', dtype)
        if recorded == dtype:
            return
        print_log(
            f"The checkpoint was made with model.neck.block.dtype='{recorded}', "
            f"the model computes in '{dtype}': results will differ a little.",
            logger='current',
            level=logging.WARNING,
        )


def _take_embedded(state: dict[str, Any], prefix: str) -> dict[str, Tensor]:
    """Remove the frozen tensors of a self-contained release from a state, and return them.

    Args:
        state (dict): Changed in place.
        prefix (str): The block's name in it, with a dot.

    Returns:
        dict[str, Tensor]: The tensors by their names in the block.
    """
    start = prefix + EMBEDDED_PREFIX
    embedded = {}
    for key in list(state):
        if key.startswith(start):
            embedded[key.removeprefix(start)] = state.pop(key)
    return embedded


def _check_order_of_heads(source: Mapping[str, Any], names: Iterable[str]) -> None:
    """Refuse weights of tiled heads that are in another order than the language model's.

    Args:
        source (Mapping): The record of a block.
        names (Iterable[str]): The names of the block's tensors that a file holds.

    Raises:
        CheckpointError: The file is of a version that moved query heads.
    """
    is_ordered = source['format'] >= ORDERED_HEADS
    if is_ordered or source.get('kv_heads') != TILED:
        return
    moved = [name for name in names if '.q_proj.' in name or '.o_proj.' in name]
    if moved:
        raise CheckpointError(
            f"The checkpoint's {listing(moved)} were made with block.kv_heads='{TILED}' by an "
            'lm4ve that moved query heads, and this one does not. Fix: train again, or make '
            'the release again.'
        )


def _check_same_shapes(
    mine: Mapping[str, Tensor], embedded: Mapping[str, Tensor]
) -> None:
    """Refuse embedded weights that do not fit.

    Raises:
        CheckpointError: It names the first of them.
    """
    names = sorted(mine.keys() ^ embedded.keys())
    if not names:
        names = [n for n in mine if mine[n].shape != embedded[n].shape]
    if names:
        raise CheckpointError(
            'The self-contained checkpoint embeds other tensors than block.arch has: '
            f'{listing(names)}. Fix: use the config that was released beside it.'
        )


def _check_embedded(embedded: Mapping[str, Tensor], digest: str) -> None:
    """Refuse embedded weights that are not those of their fingerprint.

    Raises:
        CheckpointError: They are not.
    """
    if fingerprint(sorted(embedded.items())) != digest:
        raise CheckpointError(
            'The embedded weights are damaged. Fix: copy the release again.'
        )


def accept_records(model: nn.Module, state: dict[str, Any]) -> None:
    """Change a state so that it loads despite another kind of block or other settings.

    Other frozen weights stay an error.

    Args:
        model (nn.Module): The model that will load it.
        state (dict): Its tensors by name; changed in place.
    """
    blocks = {}
    for name, module in model.named_modules():
        if isinstance(module, ProvenanceMixin):
            blocks[f'{name}.{SOURCE_KEY}'.removeprefix('.')] = module
    for key in list(state):
        ending = key.rpartition('.')[2]
        is_of_no_block = ending == SOURCE_KEY and key not in blocks
        if ending == NECK_KEY or is_of_no_block:
            del state[key]
    for key, block in blocks.items():
        record = block.source
        if key in state:
            record = decode_source(state[key], key)
            prefix = key.removesuffix(SOURCE_KEY)
            _check_order_of_heads(record, [n for n in state if n.startswith(prefix)])
        kept = {k: v for k, v in record.items() if k not in SETTINGS}
        kept['format'] = block.source['format']
        kept['window'] = block.source['window']
        for setting in UNWRITTEN:
            if setting in block.source:
                kept[setting] = block.source[setting]
        state[key] = encode_source(kept)
