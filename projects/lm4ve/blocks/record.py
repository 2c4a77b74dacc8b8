"""What a state dict says beside tensors: where frozen weights come from, and settings.

Frozen weights are not stored, and most settings of a block or a neck show in no tensor.
So each of the two writes a record into its state dict, and compares it when a state is
loaded: mappers that were trained around another block, or with another setting, would
give wrong numbers in silence. It raises here because MMEngine's loading is not strict,
and only logs what does not fit.

A record lies where torch has a place for it, ``get_extra_state``. That is no buffer,
which DDP would send to other processes and averages of weights would copy; and it is a
tensor of JSON, since safetensors and other tools take tensors alone.
"""

import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from types import UnionType
from typing import Any, get_args, get_origin

from mmengine.logging import print_log
from torch import Tensor, nn

from lm4ve.blocks.frozen import frozen_tensors
from lm4ve.blocks.old_records import upgrade_block
from lm4ve.blocks.record_text import KEY, decode_record, encode_record
from lm4ve.errors import CheckpointError, brief, listing
from lm4ve.llm.fingerprint import fingerprint
from lm4ve.llm.sources import FileSource

#: Prefix of frozen tensors in the state dict of a self-contained release.
EMBEDDED_PREFIX = 'embedded.'
#: Field in the record of such a release: the fingerprint of these tensors.
EMBEDDED = 'embedded'


class Recorded(nn.Module):
    """A module that writes a record into its state dict, and compares the one it loads.

    Attributes:
        record_prefix (str): What stands before the names of fields in messages.
        known_fields (Iterable[str]): Fields that some modules of the class record, and
            others do not.
    """

    record_prefix = ''
    known_fields: Iterable[str] = ()

    def record(self) -> dict[str, Any]:
        """Return the settings that a state dict records, as plain data.

        A setting without an effect is left out, and what one of two records lacks is
        not compared. So a checkpoint may be older than a field.
        """
        raise NotImplementedError

    def get_extra_state(self) -> Tensor:
        """Return the record for a state dict; torch calls it."""
        return encode_record(self.record())

    def set_extra_state(self, state: Any) -> None:
        """Compare the record of a state dict that is loaded; torch calls it.

        Raises:
            CheckpointError: It is damaged, has a field that this version does not know,
                or was made with another setting.
        """
        self.check_record(decode_record(state, self.record_name))

    def accept_record(self, state: dict[str, Any], prefix: str) -> None:
        """Change a state so that it loads although it was made with other settings.

        Args:
            state (dict): Changed in place.
            prefix (str): The module's name in it, with a dot.
        """
        state[prefix + KEY] = self.get_extra_state()

    @property
    def record_name(self) -> str:
        """What a record of this class is called in messages."""
        return f"The record ('{KEY}') of the checkpoint's {type(self).__name__}"

    def check_record(self, theirs: Mapping[str, Any]) -> None:
        """Refuse the record of a module that computes something else.

        Raises:
            CheckpointError: It names the field and both values.
        """
        mine = self.record()
        unknown = theirs.keys() - mine.keys() - {*self.known_fields}
        if unknown:
            raise CheckpointError(
                f'{self.record_name} is damaged, or of a newer lm4ve: it has the unknown '
                f'field(s) {listing(sorted(unknown))}. Fix: copy it again, or update lm4ve.'
            )
        for name in mine:
            if name in theirs:
                check_equal(f'{self.record_prefix}{name}', theirs[name], mine[name])


def check_equal(field: str, theirs: Any, mine: Any) -> None:
    """Refuse a checkpoint in which a field has another value.

    Raises:
        CheckpointError: It names the field and both values.
    """
    if not agree(theirs, mine):
        raise CheckpointError(
            f'The checkpoint was made with {field}={brief(repr(theirs), 200)}, the config '
            f"has {mine!r}. Fix: set the checkpoint's value."
        )


def agree(a: Any, b: Any) -> bool:
    """Return whether two values are equal; of dicts only the keys that both have are compared.

    Numbers may differ by the rounding of GGUF, which stores them in 32 bits.
    """
    if isinstance(a, dict) and isinstance(b, dict):
        shared = a.keys() & b.keys()
        return all(agree(a[key], b[key]) for key in shared)
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        try:
            return math.isclose(a, b, rel_tol=1e-6)
        except OverflowError:  # of an integer that no float can hold
            return False
    return bool(a == b)


def accept_records(model: nn.Module, state: dict[str, Any]) -> None:
    """Change a state so that it loads despite another kind of block or other settings.

    Other frozen weights stay an error.

    Args:
        model (nn.Module): The model that will load it.
        state (dict): Its tensors by name; changed in place.
    """
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, Recorded):
            module.accept_record(state, f'{name}.' if name else '')


# ----------------------------------------------------------------- frozen weights
@dataclass(frozen=True, kw_only=True)
class BlockRecord:
    """The record of a block: the one list of its fields.

    Attributes:
        source (str): The user's name of the language model.
        model_type (str): Its family.
        layers (list[int]): Which layers, from 0.
        pretrained (bool | str): Whether the weights are the model's, random, 'permuted'
            or 'scaled'.
        fingerprint (str): The fingerprint of the layers' weights.
        seed (int | None): The seed of all but the model's own weights.
        causal (bool | dict): The field of :class:`lm4ve.blocks.LLMBlock`, as are all
            below without a word.
        causal_suffix (int)
        lora (dict | None): What :func:`lm4ve.blocks.adapters.add_lora` returns.
        dtype (str): The field, or the type that the model was cast to.
        window (bool | None): None where no layer has a window.
        rotary (bool | str): False where no layer has rotary embedding.
        final_norm (bool): Whether there is a norm after the last layer.
        config (dict): The fields of the language model's config that affect the layers.
        kv_heads (str): 'grouped' where no heads share keys and values.
        heads (list[list[int]] | None): The query heads that each layer keeps; None: all.
    """

    source: str
    model_type: str
    layers: list[int]
    pretrained: bool | str
    fingerprint: str
    seed: int | None
    causal: bool | dict[str, float]
    causal_suffix: int
    lora: dict[str, Any] | None
    dtype: str
    window: bool | None
    rotary: bool | str
    final_norm: bool
    config: dict[str, Any]
    kv_heads: str
    heads: list[list[int]] | None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain data, without those that have no effect."""
        record = dict(vars(self))
        if self.window is None:
            del record['window']
        return record


#: Fields that say which weights a block has. A record must have them, and where they came
#: from is no setting: the fingerprint alone is compared.
ORIGIN = ('source', 'model_type', 'layers', 'pretrained', 'fingerprint', 'seed')


def _types_of(hint: Any) -> tuple[type, ...]:
    """Return the types of the values that a field's annotation allows."""
    hints = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    return tuple(get_origin(part) or part for part in hints)


_TYPES = {field.name: _types_of(field.type) for field in fields(BlockRecord)}


def describe(record: Mapping[str, Any]) -> str:
    """Describe a block's record in one line: which layers of what."""
    if record['pretrained'] is True:
        origin = 'pre-trained'
    elif record['pretrained']:
        origin = f'{record["pretrained"]} with seed {record["seed"]}'
    else:
        origin = f'random with seed {record["seed"]}'
    return (
        f"layers {record['layers']} of '{record['source']}' "
        f'({record["model_type"]}, {origin}, fingerprint {record["fingerprint"][:12]})'
    )


class RecordsFrozenWeights(Recorded):
    """A block that records where its frozen weights come from.

    Attributes:
        source (dict): The record, :class:`BlockRecord` as plain data.
        checkpoint (str | FileSource | None): None lets a self-contained release file bring
            the frozen weights along.
    """

    record_prefix = 'model.neck.block.'
    known_fields = (*_TYPES, EMBEDDED)

    source: dict[str, Any]
    checkpoint: str | FileSource | None

    def record(self) -> dict[str, Any]:
        """Return the block's settings and the origin of its frozen weights."""
        return dict(self.source)

    def frozen_state(self) -> dict[str, Tensor]:
        """Return the frozen tensors, for a self-contained release file."""
        state = {}
        for name, tensor in frozen_tensors(self).items():
            state[EMBEDDED_PREFIX + name] = tensor.detach().cpu()
        return state

    def check_record(self, theirs: Mapping[str, Any]) -> None:
        """Refuse the record of other frozen weights, or of a block that computes otherwise.

        The origin of weights that are all trained, and thus in the state, is history.

        Raises:
            CheckpointError: It describes both, or names the field and both values.
        """
        self._check_types(theirs)
        if frozen_tensors(self) and theirs['fingerprint'] != self.source['fingerprint']:
            raise CheckpointError(
                'The checkpoint was made with other frozen weights than the config asks '
                f'for. Checkpoint: {describe(theirs)}. Config: {describe(self.source)}. '
                'Fix: set model.neck.block.checkpoint, layers, pretrained and seed to the '
                "checkpoint's."
            )
        self._check_settings(theirs)
        self._warn_of_dtype(theirs)

    def _check_types(self, theirs: Mapping[str, Any]) -> None:
        """Refuse a record that lacks an origin, or in which a value is of another type.

        Raises:
            CheckpointError: It names the field.
        """
        lacking = [name for name in ORIGIN if name not in theirs]
        if lacking:
            raise CheckpointError(
                f"{self.record_name} is damaged: it lacks the field '{lacking[0]}'. Fix: "
                'copy it again.'
            )
        for name, value in theirs.items():
            if name in _TYPES and not isinstance(value, _TYPES[name]):
                raise CheckpointError(
                    f'{self.record_name} is damaged: its field {name}={brief(value)} has '
                    'another type. Fix: copy it again.'
                )

    def _check_settings(self, theirs: Mapping[str, Any]) -> None:
        """Compare what a block computes with its weights.

        Raises:
            CheckpointError: A setting differs, or a field of the language model's config.
        """
        settings = {**theirs}
        for name in (*ORIGIN, 'dtype', EMBEDDED):
            settings.pop(name, None)
        their_config = settings.pop('config', {})
        super().check_record(settings)
        for name, value in self.source['config'].items():
            if name in their_config:
                field = f"the language model's {name}"
                check_equal(field, their_config[name], value)

    def _warn_of_dtype(self, theirs: Mapping[str, Any]) -> None:
        """Warn that a checkpoint was made in another type than this model computes in."""
        dtype = self.source['dtype']
        recorded = theirs.get('dtype', dtype)
        if recorded == dtype:
            return
        print_log(
            f'The checkpoint was made with model.neck.block.dtype={brief(repr(recorded))}, '
            f"the model computes in '{dtype}': results will differ a little.",
            logger='current',
            level=logging.WARNING,
        )

    def _load_from_state_dict(
        self, state: dict[str, Any], prefix: str, *others: Any
    ) -> None:
        """Load what trains; before that, the weights that a self-contained release embeds.

        Raises:
            CheckpointError: See :meth:`check_record`; or the embedded weights are
                damaged, or do not fit.
        """
        upgrade_block(state, prefix)
        embedded = _take_embedded(state, prefix)
        stored = state.get(prefix + KEY)
        if embedded and stored is not None:
            self._load_embedded(decode_record(stored, self.record_name), embedded)
        super()._load_from_state_dict(state, prefix, *others)

    def accept_record(self, state: dict[str, Any], prefix: str) -> None:
        """Change a state so that it loads with other settings; other weights stay an error."""
        upgrade_block(state, prefix)
        record = self.record()
        stored = state.get(prefix + KEY)
        if stored is not None:
            theirs = decode_record(stored, self.record_name)
            self._check_types(theirs)
            for name in (*ORIGIN, 'dtype', 'config', EMBEDDED):
                if name in theirs:
                    record[name] = theirs[name]
        state[prefix + KEY] = encode_record(record)

    def _load_embedded(
        self, theirs: dict[str, Any], embedded: Mapping[str, Tensor]
    ) -> None:
        """Take over the frozen weights that a release embeds, if others are here.

        A block whose language model the config names keeps its own.

        Args:
            theirs (dict): The record of the release.
            embedded (Mapping): The frozen tensors by their names in the block.

        Raises:
            CheckpointError: They are damaged, or do not fit; or a setting differs.
        """
        self._check_types(theirs)
        digest = theirs.pop(EMBEDDED, None)
        mine = frozen_tensors(self)
        differs = bool(mine) and theirs['fingerprint'] != self.source['fingerprint']
        if differs and self.checkpoint is not None:
            return  # and be refused
        if differs:
            _check_same_shapes(mine, embedded)
        if digest and fingerprint(sorted(embedded.items())) != digest:
            raise CheckpointError(
                'The embedded weights are damaged. Fix: copy the release again.'
            )
        if not differs:
            return
        self._check_settings(theirs)
        for name, tensor in mine.items():
            # A new tensor: copies and fused models share the values of this one.
            tensor.data = embedded[name].detach().to(tensor, copy=True)
        self.source = {**self.source, **theirs, 'dtype': self.source['dtype']}


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
            f'{listing(names)}. Fix: use the config that was released beside it; or make '
            'the release again, if an lm4ve from before 0.1.0 made it.'
        )
