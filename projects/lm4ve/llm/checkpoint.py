"""Open a language model's checkpoint: its configuration, and the weights of single layers.

Data goes one way, from a name in a config to the tensors of one layer::

    'org/name', '/path', 'package:name'
      -> sources.py       which files there are, by name
      -> readers.py       which tensors are in them, by name
         torch_files.py   those of torch.save, without executing code
         meta_layout.py   Meta's names and rows turned into Hugging Face's
         gguf_files.py    llama.cpp's one file, configuration and weights
         expert_layout.py experts' matrices joined
      -> Checkpoint       the configuration, and the tensors of a layer, one at a time
      -> lm4ve.blocks     the layer

A file of this folder is imported where a checkpoint needs it, and a weight file is
opened when a layer is read for the first time: a model that is refused, or that gets
random weights, costs no download of them.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lm4ve.errors import CheckpointError, UserError, listing
from lm4ve.llm.finite import check_finite
from lm4ve.llm.readers import open_huggingface
from lm4ve.llm.sources import Tensors, find_files

# Names of LayerNorm's parameters in BERT checkpoints that were converted from
# TensorFlow.
_OLD_WORDS = {'weight': 'gamma', 'bias': 'beta'}
_OLD_NAMES = re.compile(r'(?<=LayerNorm\.)(weight|bias)$')
# What files hold beside a layer's weights: masks, tables, and t5's bias by position.
_BESIDE = re.compile(
    r'.*\.(rotary_emb\..*|rope\.freqs|embed_positions|causal_mask|relative_attention_bias\.weight'
    r'|(attn|attention)\.(masked_)?bias)'
)
# Integers and 8-bit floats need scales, which are not read.
_TYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


@dataclass
class Checkpoint:
    """The configuration of a language model, and the tensors of its layers.

    Attributes:
        name (str): The user's name of it.
        config (dict): The content of ``config.json``, not checked yet.
        config_file (Path): Where the configuration was read, for messages.
        open_weights (callable): Opens the weight files.
    """

    name: str
    config: dict[str, Any]
    config_file: Path
    open_weights: Callable[[], Tensors]

    @cached_property
    def weights(self) -> Tensors:
        """All tensors, by Hugging Face's names."""
        return self.open_weights()

    def read_layer(
        self, place: str, shapes: Mapping[str, tuple[int, ...]]
    ) -> Iterator[tuple[str, Tensor]]:
        """Read a layer's tensors one at a time, sorted by name.

        Args:
            place (str): The end of the prefix of the layer's tensors: its index from 0
                or, for a family that shares layers, a longer one.
            shapes (Mapping[str, tuple]): The name of each tensor in the layer, and the
                shape that the configuration implies.

        Yields:
            tuple[str, Tensor]: The name in the layer and the tensor, which may be a
            map of the file: copy it to keep it.

        Raises:
            CheckpointError: Weights are missing, damaged, quantized, not finite, of
                other shapes, or more than the configuration implies.
        """
        for name, stored in sorted(self._stored_names(place, list(shapes)).items()):
            try:
                weight = self.weights[stored]()
            except UserError:
                raise
            except Exception as e:  # of many kinds, none of which names the tensor
                raise CheckpointError(
                    f"'{stored}' of '{self.name}' is damaged: {e}."
                ) from e
            if weight.shape != shapes[name]:
                raise CheckpointError(
                    f"'{stored}' of '{self.name}' has the shape {list(weight.shape)}, but its "
                    f'config.json implies {list(shapes[name])}. Fix: copy both from one release.'
                )
            if (
                weight.dtype not in _TYPES
                or weight.layout != torch.strided
                or weight.is_meta
            ):
                raise CheckpointError(
                    f"'{stored}' of '{self.name}' is stored as {weight.dtype} ({weight.layout}). "
                    "Fix: use the model's original weights, not quantized ones."
                )
            check_finite({stored: weight}, f"'{self.name}'")
            yield name, weight

    def _stored_names(self, place: str, wanted: list[str]) -> dict[str, str]:
        """Map a layer's names to the names in the files.

        There is no table of prefixes: the right one is the only prefix under which
        all names of the layer exist.
        """
        names = set(self.weights)
        pattern = re.compile(rf'((?:.*\.)?{re.escape(place)}\.){re.escape(wanted[0])}')
        spellings = (
            wanted,
            [_OLD_NAMES.sub(lambda m: _OLD_WORDS[m[0]], name) for name in wanted],
        )
        found = {}
        for prefix in sorted(m[1] for m in map(pattern.fullmatch, names) if m):
            for spelling in spellings:
                stored = [prefix + name for name in spelling]
                if names.issuperset(stored):
                    found[prefix] = dict(zip(wanted, stored, strict=True))
                    break
        if len(found) != 1:
            places = listing([f[wanted[0]] for f in found.values()]) or 'nowhere'
            raise CheckpointError(
                f"'{self.name}' must have layer {place} of a '{self.config['model_type']}' "
                f'({listing(wanted, 3)}) under one prefix, as transformers has it; found {places} '
                f'among {listing(sorted(names), 3)}.'
            )
        ((prefix, layer),) = found.items()
        others = sorted(n for n in names - {*layer.values()} if n.startswith(prefix))
        if extra := [n for n in others if not _BESIDE.fullmatch(n)]:
            raise CheckpointError(
                f"'{self.name}' has {listing(extra, 3)}, which a '{self.config['model_type']}' of "
                'its config.json does not have. Fix: copy both from one release.'
            )
        return layer


def read_config_file(path: Path) -> dict[str, Any]:
    """Read a ``config.json`` or ``params.json``.

    Raises:
        CheckpointError: It is not JSON.
    """
    try:
        config = json.loads(path.read_text())
    except (ValueError, RecursionError) as e:
        raise CheckpointError(f'{path} is not JSON: {e}.') from e
    return config if isinstance(config, dict) else {}  # which lacks every field


def open_checkpoint(checkpoint: str) -> Checkpoint:
    """Find a checkpoint's files and read its configuration.

    Args:
        checkpoint (str): See :func:`lm4ve.llm.sources.find_files`.

    Raises:
        CheckpointError: There is no such checkpoint, it has no configuration, or its
            configuration is damaged.
    """
    source, weight_file = find_files(checkpoint)
    names = (
        [] if source.folder is None else sorted(p.name for p in source.folder.iterdir())
    )
    gguf = [n for n in ([weight_file] if weight_file else names) if n.endswith('.gguf')]
    if gguf and (weight_file or not {'config.json', 'params.json'} & set(names)):
        if len(gguf) > 1:
            raise CheckpointError(
                f"'{source.name}' holds several GGUF files. Fix: point at one."
            )
        from lm4ve.llm.gguf_files import open_gguf

        assert source.folder is not None
        path = source.folder / gguf[0]
        config, weights = open_gguf(path)
        return Checkpoint(source.name, config, path, partial(dict, weights))
    for name in ('config.json', 'params.json'):
        if (found := source.find(name)) is None:
            continue
        config = read_config_file(found)
        if name == 'config.json':
            open_weights = partial(open_huggingface, source, weight_file)
            return Checkpoint(source.name, config, found, open_weights)
        from lm4ve.llm.meta_layout import open_meta

        config, weights = open_meta(source, found, config)
        return Checkpoint(source.name, config, found, partial(dict, weights))
    raise CheckpointError(
        f"block.checkpoint='{source.name}' has neither config.json (Hugging Face) nor params.json "
        f'(Meta); found {listing(names) or "nothing"}.'
    )
