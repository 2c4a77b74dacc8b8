"""How a checkpoint tells which frozen weights it was made with.

Frozen weights are not stored; instead a block adds a record of them to its state
dict: where they came from, which layers, and a fingerprint. Loading it into a
block with other frozen weights is an error, raised here because MMEngine's
loading is not strict and only logs what does not fit.
"""

import json

import torch
from torch import Tensor, nn

from lm4ve.blocks.frozen import frozen_tensors
from lm4ve.errors import CheckpointError

# Entries of the state dict beside the trained parameters.
SOURCE_KEY = 'llm_source'
EMBEDDED = 'embedded.'


class RecordsSource(nn.Module):
    """A module whose state dict records its frozen weights, not holds them.

    Attributes:
        source (dict): The record: name, layers, fingerprint, ...
        checkpoint (str | None): None lets a self-contained release file bring
            the frozen weights along.
    """

    source: dict
    checkpoint: str | None

    def frozen_state(self) -> dict[str, Tensor]:
        """The frozen tensors, for a self-contained release file."""
        return {EMBEDDED + name: t.detach().cpu() for name, t in frozen_tensors(self).items()}

    def _save_to_state_dict(self, destination, prefix, keep_vars) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        record = json.dumps(self.source).encode()
        # A tensor, since distributed init and EMA walk over tensors only.
        destination[prefix + SOURCE_KEY] = torch.tensor(list(record), dtype=torch.uint8)

    def _load_from_state_dict(
        self, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
    ):
        record = state_dict.pop(prefix + SOURCE_KEY, None)
        start = prefix + EMBEDDED
        embedded = {
            k[len(start) :]: state_dict.pop(k) for k in list(state_dict) if k.startswith(start)
        }
        if record is None:
            missing_keys.append(prefix + SOURCE_KEY)
        elif frozen_tensors(self):
            self._accept(_parse(record, prefix + SOURCE_KEY), embedded)
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )

    def _accept(self, record: dict, embedded: dict[str, Tensor]) -> None:
        """Check a checkpoint's record against this block's frozen weights."""
        if record['fingerprint'] == self.source['fingerprint']:
            return
        if embedded and self.checkpoint is None:
            mine = frozen_tensors(self)
            differ = sorted(set(mine) ^ set(embedded)) or [
                n for n in mine if mine[n].shape != embedded[n].shape
            ]
            if differ:
                raise CheckpointError(
                    'The self-contained checkpoint embeds other tensors than '
                    f'block.arch has; they differ in {", ".join(differ[:4])}. '
                    'Fix: use the config that was released beside it.'
                )
            with torch.no_grad():
                for name, tensor in mine.items():
                    tensor.copy_(embedded[name])
            self.source = record
            return
        raise CheckpointError(
            'The checkpoint was made with other frozen weights than the config asks for. '
            f'Checkpoint: {_tell(record)}. Config: {_tell(self.source)}. Fix: set '
            "model.neck.block.checkpoint, layers, pretrained and seed to the checkpoint's."
        )


def _parse(record: Tensor, key: str) -> dict:
    try:
        source = json.loads(bytes(record.tolist()))
        _tell(source)  # has every field
    except (ValueError, KeyError, TypeError) as e:
        raise CheckpointError(
            f"'{key}' of the checkpoint is damaged ({type(e).__name__}: {e}). It records which "
            'frozen weights the model was trained with. Fix: copy the checkpoint again.'
        ) from e
    return source


def _tell(source: dict) -> str:
    origin = 'pre-trained' if source['pretrained'] else (f'random with seed {source["seed"]}')
    return (
        f"layers {source['layers']} of '{source['source']}' "
        f'({source["model_type"]}, {origin}, fingerprint {source["fingerprint"][:12]})'
    )
