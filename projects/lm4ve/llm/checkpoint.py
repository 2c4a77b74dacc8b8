"""Open a language model's checkpoint: the door through which blocks come for weights.

Data goes one way, from a name in a config to the tensors of one layer::

    'org/name', '/path', 'package:name'
      -> sources.py       which files there are, by name
      -> readers.py       which tensors are in them, by name
      -> meta_layout.py   Meta's names and rows turned into Hugging Face's, where needed
      -> gguf_files.py    llama.cpp's one file, configuration and weights, where it is one
      -> expert_layout.py experts' matrices joined, where there are any
      -> Checkpoint       the configuration, and the tensors of a layer, one at a time
      -> lm4ve.blocks     the layer

No file of this folder imports one that stands below it in this list, and none knows
a module of ``lm4ve.blocks``. A weight file is opened when a layer is read for the first
time: a model that is refused, or that gets random weights, costs no download of them.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lm4ve.errors import CheckpointError, listing
from lm4ve.llm.expert_layout import join_experts
from lm4ve.llm.gguf_files import GGUFFile
from lm4ve.llm.meta_layout import open_meta
from lm4ve.llm.readers import TensorReader, open_huggingface
from lm4ve.llm.sources import FileSource, find_files

# BERT checkpoints from TensorFlow times name LayerNorm's parameters so.
_OLD_NAMES = {'LayerNorm.weight': 'LayerNorm.gamma', 'LayerNorm.bias': 'LayerNorm.beta'}
# Integers and 8-bit floats are nothing without their scales.
_STORED_TYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


class Checkpoint:
    """The configuration of a language model, and the tensors of its layers.

    Args:
        name (str): What the user calls it.
        config (dict): The content of ``config.json``, not checked yet.
        config_file (Path): Where the configuration was read, for messages.
        open_weights (callable): Opens the weight files.
    """

    def __init__(
        self,
        name: str,
        config: dict[str, Any],
        config_file: Path,
        open_weights: Callable[[], TensorReader],
    ) -> None:
        self.name = name
        self.config = config
        self.config_file = config_file
        self._open_weights = open_weights

    @cached_property
    def weights(self) -> TensorReader:
        """All tensors, by Hugging Face's names.

        Raises:
            CheckpointError: There are no weights, or they are damaged.
        """
        return self._open_weights()

    def read_layer(
        self, place: str, shapes: Mapping[str, tuple[int, ...]]
    ) -> Iterator[tuple[str, Tensor]]:
        """Read a layer's tensors one at a time, sorted by name.

        All names and shapes are checked before the first tensor is read.

        Args:
            place (str): The end of the prefix of the layer's tensors: its index from 0 or,
                for a family that shares layers, a longer one.
            shapes (Mapping[str, tuple]): The name of each tensor in the layer, and the
                shape that the configuration implies.

        Yields:
            tuple[str, Tensor]: The name in the layer and the tensor, which may be a
            map of the file: copy it to keep it.

        Raises:
            CheckpointError: Weights are missing, damaged, quantized, or of other shapes.
        """
        stored = self._stored_names(place, list(shapes))
        for name, expected in shapes.items():
            shape = self.weights.shape(stored[name])
            if shape != expected:
                raise CheckpointError(
                    f"'{stored[name]}' of '{self.name}' has the shape {list(shape)}, but its "
                    f'config.json implies {list(expected)}. Fix: copy both from one release.'
                )
        for name in sorted(stored):
            weight = self.weights.read(stored[name])
            dense = weight.layout == torch.strided and not weight.is_meta
            if weight.dtype not in _STORED_TYPES or not dense:
                raise CheckpointError(
                    f"'{stored[name]}' of '{self.name}' is stored as {weight.dtype} "
                    f"({weight.layout}). Fix: use the model's original weights, not quantized ones."
                )
            yield name, weight

    def _stored_names(self, place: str, wanted: list[str]) -> dict[str, str]:
        """Map a layer's names to the names in the files.

        There is no table of prefixes: the right one is the only prefix under which
        all names of the layer exist.
        """
        names = set(self.weights.names())
        pattern = re.compile(rf'((?:.*\.)?{re.escape(place)}\.){re.escape(wanted[0])}')
        old = {
            w: next((w[: -len(new)] + o for new, o in _OLD_NAMES.items() if w.endswith(new)), w)
            for w in wanted
        }
        found = []
        for prefix in sorted(m[1] for m in map(pattern.fullmatch, names) if m):
            for spelling in ({w: w for w in wanted}, old):
                stored = {w: prefix + s for w, s in spelling.items()}
                if names.issuperset(stored.values()):
                    found.append(stored)
                    break
        if len(found) == 1:
            return found[0]
        if found:
            places = ', '.join(f[wanted[0]] for f in found)
            raise CheckpointError(f"'{self.name}' has layer {place} more than once: {places}.")
        raise CheckpointError(
            f"'{self.name}' has no layer {place} of model_type '{self.config['model_type']}': no "
            f'prefix has all of {listing(wanted, 3)}; found {listing(sorted(names), 3)}. Fix: use '
            "a checkpoint in the layout of transformers' own classes."
        )


def open_checkpoint(checkpoint: str) -> Checkpoint:
    """Find a checkpoint's files and read its configuration.

    Args:
        checkpoint (str): See :func:`lm4ve.llm.sources.find_files`.

    Raises:
        CheckpointError: There is no such checkpoint, it has no configuration, or its
            configuration is damaged.
    """
    source, weight_file = find_files(checkpoint)
    gguf = weight_file if weight_file and weight_file.endswith('.gguf') else _only_gguf(source)
    if gguf and (path := source.find(gguf)) is not None:
        file = GGUFFile(path)
        return Checkpoint(source.name, file.config, path, lambda: file)
    if (path := source.find('config.json')) is not None:
        config = _read_json(path)
        return Checkpoint(
            source.name, config, path, lambda: join_experts(open_huggingface(source, weight_file))
        )
    if (path := source.find('params.json')) is not None:
        config, reader = open_meta(source, path, _read_json(path))
        return Checkpoint(source.name, config, path, lambda: reader)
    raise CheckpointError(
        f"block.checkpoint='{source.name}' has neither config.json (Hugging Face) nor params.json "
        f'(Meta); found {listing(source.names()) or "nothing"}.'
    )


def _only_gguf(source: FileSource) -> str | None:
    """Return the GGUF file of a folder that has no other model in it.

    Raises:
        CheckpointError: There are several.
    """
    names = source.names()
    files = [name for name in names if name.endswith('.gguf')]
    if not files or {'config.json', 'params.json'} & set(names):
        return None
    if len(files) > 1:
        raise CheckpointError(
            f"block.checkpoint='{source.name}' holds several GGUF files. Fix: point at one."
        )
    return files[0]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (ValueError, RecursionError) as e:
        raise CheckpointError(f'{path} is not JSON: {e}.') from e
    # Anything else lacks every field.
    return content if isinstance(content, dict) else {}
