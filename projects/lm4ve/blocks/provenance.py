"""How a checkpoint tells which frozen weights it was made with.

Frozen weights are not stored. Instead a block adds a record of them to its state
dict: where they came from, which layers, and a fingerprint. Loading a record into a
block with other frozen weights is an error, raised here because MMEngine's
loading is not strict and only logs what does not fit.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lm4ve.blocks.frozen import frozen_tensors
from lm4ve.errors import CheckpointError

#: Key of the record in a block's state dict.
SOURCE_KEY = 'llm_source'
#: Prefix of frozen tensors in the state dict of a self-contained release.
EMBEDDED_PREFIX = 'embedded.'


def encode_source(source: Mapping[str, Any]) -> Tensor:
    """Write a record as uint8: distributed training and EMA walk over tensors only."""
    return torch.tensor(list(json.dumps(source).encode()), dtype=torch.uint8)


def decode_source(record: Tensor, key: str = SOURCE_KEY) -> dict[str, Any]:
    """Read a record.

    Args:
        record (Tensor): uint8, from a state dict.
        key (str): Its key there, for the message.

    Raises:
        CheckpointError: The record is damaged.
    """
    try:
        source: dict[str, Any] = json.loads(bytes(record.tolist()))
        _describe(source)  # has every field
    except (ValueError, KeyError, TypeError) as e:
        raise CheckpointError(
            f"'{key}' of the checkpoint is damaged ({type(e).__name__}: {e}). It records which "
            'frozen weights the model was trained with. Fix: copy the checkpoint again.'
        ) from e
    return source


def _describe(source: Mapping[str, Any]) -> str:
    origin = 'pre-trained' if source['pretrained'] else f'random with seed {source["seed"]}'
    return (
        f"layers {source['layers']} of '{source['source']}' "
        f'({source["model_type"]}, {origin}, fingerprint {source["fingerprint"][:12]})'
    )


class RecordsFrozenSource(nn.Module):
    """A module whose state dict says where its frozen weights come from.

    Attributes:
        source (dict): The record: name, layers, fingerprint, ...
        checkpoint (str | None): None lets a self-contained release file bring
            the frozen weights along.
    """

    source: dict[str, Any]
    checkpoint: str | None

    def frozen_state(self) -> dict[str, Tensor]:
        """The frozen tensors, for a self-contained release file."""
        return {EMBEDDED_PREFIX + n: t.detach().cpu() for n, t in frozen_tensors(self).items()}

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + SOURCE_KEY] = encode_source(self.source)

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        *others: Any,
    ) -> None:
        record = state_dict.pop(prefix + SOURCE_KEY, None)
        start = prefix + EMBEDDED_PREFIX
        embedded = {
            k.removeprefix(start): state_dict.pop(k)
            for k in list(state_dict)
            if k.startswith(start)
        }
        if record is None:
            missing_keys.append(prefix + SOURCE_KEY)
        elif frozen_tensors(self):
            self._compare_source(decode_source(record, prefix + SOURCE_KEY), embedded)
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, *others
        )

    def _compare_source(self, source: dict[str, Any], embedded: dict[str, Tensor]) -> None:
        """Compare a checkpoint's record with this block's; take embedded weights if need be."""
        if source['fingerprint'] == self.source['fingerprint']:
            return
        if not embedded or self.checkpoint is not None:
            raise CheckpointError(
                'The checkpoint was made with other frozen weights than the config asks for. '
                f'Checkpoint: {_describe(source)}. Config: {_describe(self.source)}. Fix: set '
                "model.neck.block.checkpoint, layers, pretrained and seed to the checkpoint's."
            )
        mine = frozen_tensors(self)
        differ: Iterable[str] = set(mine) ^ set(embedded)
        differ = sorted(differ) or [n for n in mine if mine[n].shape != embedded[n].shape]
        if differ:
            raise CheckpointError(
                'The self-contained checkpoint embeds other tensors than block.arch has; they '
                f'differ in {", ".join(differ[:4])}. Fix: use the config that was released beside '
                'it.'
            )
        with torch.no_grad():
            for name, tensor in mine.items():
                tensor.copy_(embedded[name])
        self.source = source
