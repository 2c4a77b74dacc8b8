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
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from lm4ve.blocks.frozen import frozen_tensors
from lm4ve.blocks.record import (
    FIELD_TYPES,
    OPTIONAL_FIELDS,
    RECORDED_DTYPES,
    describe,
)
from lm4ve.errors import CheckpointError, brief, listing
from lm4ve.llm.fingerprint import fingerprint

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
    queries='model.neck.queries',
    gate='model.neck.gate',
    shuffle_tokens='model.neck.shuffle_tokens',
    heads='model.neck.block.num_heads',
    place="LLMBlockInsert's place",
)


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
            know.
    """
    try:
        # [:], since bytes(10**12) would be as long.
        source: Any = json.loads(bytes(record[:].tolist()))
    except (ValueError, LookupError, TypeError, RecursionError) as e:
        raise CheckpointError(
            f"'{key}' of the checkpoint is damaged ({type(e).__name__}: {e}). Fix: copy it again."
        ) from e
    is_neck = key.rpartition('.')[2] == NECK_KEY
    defect = _defect(source, {} if is_neck else FIELD_TYPES)
    if defect:
        raise CheckpointError(
            f"'{key}' of the checkpoint is damaged, or of a newer lm4ve: {defect}. Fix: copy it "
            'again, or update lm4ve.'
        )
    found: dict[str, Any] = source
    return found


def _defect(source: Any, fields: Mapping[str, Any]) -> str:
    """Describe what is wrong with a record, or return nothing."""
    if not isinstance(source, dict) or not source:
        return f'it is {brief(source)}, expected its fields'
    for name, kind in fields.items():
        if name not in source:
            if name in OPTIONAL_FIELDS:
                continue
            return f"it lacks the field '{name}'"
        if not isinstance(source[name], kind):
            return f'its field {name}={brief(source[name])} has another type'
    unknown = source.keys() - fields.keys() - SETTINGS.keys()
    if unknown:
        return f'it has the unknown field(s) {listing(sorted(unknown))}'
    if source.get('format', 1) != 1:
        return f'its format={source["format"]}, expected 1'
    if source.get('dtype', 'float32') not in RECORDED_DTYPES:
        return f'its dtype={source["dtype"]!r} is none of {", ".join(RECORDED_DTYPES)}'
    return ''


def compare_settings(theirs: Mapping[str, Any], mine: Mapping[str, Any]) -> None:
    """Refuse a checkpoint whose model computes something else with the same weights.

    Args:
        theirs, mine (Mapping): Records; what one of them lacks is not compared.

    Raises:
        CheckpointError: One of :data:`SETTINGS` has another value, or a field of the
            language model's config.
    """
    pairs = [
        (field, theirs.get(name), mine.get(name)) for name, field in SETTINGS.items()
    ]
    pairs = [(field, a, b) for field, a, b in pairs if a is not None and b is not None]
    there, here = theirs.get('config', {}), mine.get('config', {})
    pairs += [
        (f"the language model's {k}", there[k], here[k]) for k in there if k in here
    ]
    for field, a, b in pairs:
        if not _agree(a, b):
            raise CheckpointError(
                f'The checkpoint was made with {field}={a!r}, the config has {b!r}. Fix: set the '
                "checkpoint's value."
            )


def _agree(a: Any, b: Any) -> bool:
    """Return whether two values are equal; of dicts only the keys that both have are compared.

    Numbers may differ by the rounding of GGUF, which stores them in 32 bits.
    """
    if isinstance(a, dict) and isinstance(b, dict):
        return all(_agree(a[k], b[k]) for k in a if k in b)
    numbers = isinstance(a, (int, float)) and isinstance(b, (int, float))
    return math.isclose(a, b, rel_tol=1e-6) if numbers else bool(a == b)


class ProvenanceMixin(nn.Module):
    """A module whose state dict records where its frozen weights come from.

    Attributes:
        source (dict): The record: name, layers, fingerprint, ..., ``dtype`` and
            :data:`SETTINGS`.
        checkpoint (str | None): None lets a self-contained release file bring
            the frozen weights along.
    """

    source: dict[str, Any]
    checkpoint: str | None

    def __init__(self) -> None:
        super().__init__()
        declare_record(self, SOURCE_KEY)

    def frozen_state(self) -> dict[str, Tensor]:
        """Return the frozen tensors, for a self-contained release file."""
        return {
            EMBEDDED_PREFIX + n: t.detach().cpu()
            for n, t in frozen_tensors(self).items()
        }

    def _save_to_state_dict(
        self, state: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(state, prefix, keep_vars)
        state[prefix + SOURCE_KEY] = encode_source(self.source)

    def _load_from_state_dict(
        self, state: dict[str, Any], prefix: str, *others: Any
    ) -> None:
        record = take_record(self, state, prefix, SOURCE_KEY)
        start = prefix + EMBEDDED_PREFIX
        names = [k for k in state if k.startswith(start)]
        embedded = {k.removeprefix(start): state.pop(k) for k in names}
        if record is not None:
            self._compare(decode_source(record, prefix + SOURCE_KEY), embedded)
        super()._load_from_state_dict(state, prefix, *others)

    def _compare(self, source: dict[str, Any], embedded: dict[str, Tensor]) -> None:
        """Compare a checkpoint's record with this block's; load embedded weights if need be.

        Raises:
            CheckpointError: The settings differ; or the frozen weights, and the
                checkpoint does not bring weights that fit.
        """
        mine, digest = frozen_tensors(self), source.pop('embedded', None)
        differs = bool(mine) and source['fingerprint'] != self.source['fingerprint']
        if differs and (self.checkpoint is not None or not embedded):
            raise CheckpointError(
                'The checkpoint was made with other frozen weights than the config asks for. '
                f'Checkpoint: {describe(source)}. Config: {describe(self.source)}. Fix: set '
                "model.neck.block.checkpoint, layers, pretrained and seed to the checkpoint's."
            )
        names = sorted(mine.keys() ^ embedded.keys())
        names = names or [n for n in mine if mine[n].shape != embedded[n].shape]
        if differs and names:
            raise CheckpointError(
                'The self-contained checkpoint embeds other tensors than block.arch has: '
                f'{listing(names)}. Fix: use the config that was released beside it.'
            )
        if embedded and digest and digest != fingerprint(sorted(embedded.items())):
            raise CheckpointError(
                'The embedded weights are damaged. Fix: copy the release again.'
            )
        if (
            'window' not in source and self.source['window']
        ):  # made before there were windows
            self.source['window'] = False
            text = 'The checkpoint was made without windows: model.neck.block.window is False now.'
            print_log(text, logger='current', level=logging.WARNING)
        compare_settings(source, self.source)
        dtype = self.source['dtype']
        if source.get('dtype', dtype) != dtype:
            print_log(
                f"The checkpoint was made with model.neck.block.dtype='{source['dtype']}', the "
                f"model computes in '{dtype}': results will differ a little.",
                logger='current',
                level=logging.WARNING,
            )
        if differs:
            with torch.no_grad():
                for name, tensor in mine.items():
                    tensor.copy_(embedded[name])
            self.source = {**self.source, **source, 'dtype': dtype}


def accept_records(model: nn.Module, state: dict[str, Any]) -> None:
    """Change a state so that it loads despite another kind of block or other settings.

    Other frozen weights stay an error.

    Args:
        model (nn.Module): The model that will load it.
        state (dict): Its tensors by name; changed in place.
    """
    named = {n: m for n, m in model.named_modules() if isinstance(m, ProvenanceMixin)}
    blocks = {
        f'{name}.{SOURCE_KEY}'.removeprefix('.'): block for name, block in named.items()
    }
    for key in list(state):
        ending = key.rpartition('.')[2]
        if ending == NECK_KEY or (ending == SOURCE_KEY and key not in blocks):
            del state[key]
    for key, block in blocks.items():
        record = decode_source(state[key], key) if key in state else block.source
        kept = {k: v for k, v in record.items() if k not in SETTINGS}
        state[key] = encode_source(dict(kept, window=block.source['window']))
