"""Open a language model's checkpoint: its configuration, and the weights of single layers.

Data goes one way, from a name in a config to the tensors of one layer::

    'org/name', '/path', 'package:name'
      -> sources.py       which files there are, by name
      -> readers.py       which tensors are in them, by name
         torch_files.py   those of torch.save, without executing code
         meta_layout.py   Meta's names and rows turned into Hugging Face's
         gguf_files.py    llama.cpp's one file, configuration and weights
         library_layout.py names and forms of families that run by their own layer
      -> Checkpoint       the configuration, and the tensors of a layer, one at a time
      -> lm4ve.blocks     the layer

A weight file is opened when a layer is read for the first time: a model that is
refused, or that gets random weights, costs no download of them.
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
from lm4ve.llm.gguf_files import open_gguf
from lm4ve.llm.meta_layout import open_meta
from lm4ve.llm.readers import mistral_advice, open_huggingface
from lm4ve.llm.sources import CONFIG_FILES, FileSource, Tensors, find_files

# Names of LayerNorm's parameters in BERT checkpoints that were converted from
# TensorFlow.
_OLD_WORDS = {'weight': 'gamma', 'bias': 'beta'}
_OLD_NAMES = re.compile(r'(?<=LayerNorm\.)(weight|bias)$')
# Tensors in a layer's namespace that are ignored: masks, tables, and t5's bias by
# position.
_IGNORED = re.compile(
    r'.*\.(rotary_emb\..*|rope\.freqs|embed_positions|causal_mask'
    r'|relative_attention_bias\.weight|(attn|attention)\.(masked_)?bias)'
)
# Tensors that GPTQ, AWQ, bitsandbytes, MLX and 8-bit floats store beside packed weights.
_QUANTIZED = re.compile(
    r'\.(qweight|qzeros|g_idx|SCB|scales|weight_scale|weight_scale_inv|weight_packed'
    r'|weight\.(absmax|quant_map|quant_state\..*))$'
)
# A tensor of a layer, as Mistral's and Meta's own libraries name it.
_MISTRALS = re.compile(r'^layers\.\d+\.attention\.wq\.weight$')
# Integers and 8-bit floats need scales, which are not read.
_TYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


@dataclass
class Checkpoint:
    """The configuration of a language model, and the tensors of its layers.

    Attributes:
        name (str): The checkpoint's name in the user's config.
        config (dict): The content of ``config.json``, not checked yet.
        config_file (Path): Where the configuration was read, for messages.
        open_weights (callable): Opens the weight files.
        convert (callable, optional): Brings the stored tensors into the form of
            ``transformers``, where a family's files have another.
    """

    name: str
    config: dict[str, Any]
    config_file: Path
    open_weights: Callable[[], Tensors]
    convert: Callable[[Tensors], Tensors] | None = None

    @cached_property
    def weights(self) -> Tensors:
        """All tensors, as ``transformers`` names and joins them."""
        if self.convert is None:
            return self.open_weights()
        return self.convert(self.open_weights())

    def read_layer(
        self, place: str, shapes: Mapping[str, tuple[int, ...]]
    ) -> Iterator[tuple[str, Tensor]]:
        """Read a layer's tensors one at a time, sorted by name.

        Args:
            place (str): The end of the prefix of the layer's tensors, without its last
                dot: the layer's index from 0 or, for a family that shares layers, a
                longer one.
            shapes (Mapping[str, tuple]): The name of each tensor in the layer, and the
                shape that the configuration implies.

        Yields:
            tuple[str, Tensor]: The name in the layer and the tensor, which may be a
            map of the file: copy it to keep it.

        Raises:
            CheckpointError: Weights are missing, damaged, quantized, not finite, of
                other shapes, or more than the configuration implies.
        """
        stored_names = self._stored_names(place, list(shapes))
        for name, stored in sorted(stored_names.items()):
            yield name, self._read(stored, shapes[name])

    def _read(self, stored: str, shape: tuple[int, ...]) -> Tensor:
        """Read a tensor by its name in the files, and check it.

        Raises:
            CheckpointError: See :meth:`read_layer`.
        """
        try:
            weight = self.weights[stored]()
        except UserError:
            raise
        except Exception as e:  # of many kinds, none of which names the tensor
            raise CheckpointError(
                f"'{stored}' of '{self.name}' is damaged: {e}."
            ) from e
        if weight.shape != shape:
            raise CheckpointError(
                f"'{stored}' of '{self.name}' has the shape {list(weight.shape)}, but "
                f'its config.json implies {list(shape)}. Fix: copy both from one '
                'release.'
            )
        is_plain = weight.layout == torch.strided and not weight.is_meta
        if weight.dtype not in _TYPES or not is_plain:
            raise CheckpointError(
                f"'{stored}' of '{self.name}' is stored as {weight.dtype} "
                f"({weight.layout}). Fix: use the model's original weights, not "
                'quantized ones.'
            )
        check_finite({stored: weight}, f"'{self.name}'")
        return weight

    def _stored_names(self, place: str, wanted: list[str]) -> dict[str, str]:
        """Map a layer's names to the names in the files.

        There is no table of prefixes: the right one is the only prefix under which
        all names of the layer exist.

        Args:
            place (str): See :meth:`read_layer`.
            wanted (list[str]): The names in the layer.

        Returns:
            dict[str, str]: Name in the layer -> name in the files.

        Raises:
            CheckpointError: No prefix, or several, have all names, or the layer in the
                files has more.
        """
        names = set(self.weights)
        layers = {}
        for prefix in _prefixes(names, place, wanted[0]):
            layer = _match_names(names, prefix, wanted)
            if layer is not None:
                layers[prefix] = layer
        family = self.config['model_type']
        if len(layers) != 1:
            self._refuse_other_layouts(names)
            firsts = [layer[wanted[0]] for layer in layers.values()]
            places = listing(firsts) or 'nowhere'
            raise CheckpointError(
                f"'{self.name}' must have layer {place} of a '{family}' "
                f'({listing(wanted, 3)}) under one prefix, as transformers has it; '
                f'found {places} among {listing(sorted(names), 3)}.'
            )
        prefix = next(iter(layers))
        layer = layers[prefix]
        extra = _unread_names(names - set(layer.values()), prefix)
        if extra:
            self._refuse_other_layouts(names)
            raise CheckpointError(
                f"'{self.name}' has {listing(extra, 3)}, which a '{family}' of its "
                'config.json does not have. Fix: copy both from one release.'
            )
        return layer

    def _refuse_other_layouts(self, names: set[str]) -> None:
        """Refuse quantized weights and Mistral's own names, where a layer was not found.

        Args:
            names (set[str]): The names of all tensors in the files.

        Raises:
            CheckpointError: A name shows them.
        """
        quantized = sorted(name for name in names if _QUANTIZED.search(name))
        if quantized:
            raise CheckpointError(
                f"'{self.name}' holds quantized weights ({listing(quantized, 2)}), though its "
                'config.json has no quantization_config. Fix: the unquantized release, or a '
                'GGUF file of it.'
            )
        is_safe = self.name.endswith('.safetensors')
        if is_safe and any(_MISTRALS.search(name) for name in names):
            raise CheckpointError(mistral_advice(self.name))


def _prefixes(names: set[str], place: str, name: str) -> list[str]:
    """Return the prefixes, with their last dot, under which a layer's tensor may be stored.

    Args:
        names (set[str]): The names of all tensors in the files.
        place (str): The end of the prefix, without its last dot.
        name (str): The name of one tensor in the layer.

    Returns:
        list[str]: Sorted; for place '3' and name 'mlp.weight', for example
        ['model.layers.3.'].
    """
    pattern = re.compile(rf'((?:.*\.)?{re.escape(place)}\.){re.escape(name)}')
    prefixes = []
    for stored in names:
        match = pattern.fullmatch(stored)
        if match:
            prefixes.append(match[1])
    return sorted(prefixes)


def _match_names(
    names: set[str], prefix: str, wanted: list[str]
) -> dict[str, str] | None:
    """Map a layer's names to those under a prefix, in today's or TensorFlow's spelling.

    Returns:
        dict[str, str] | None: Name in the layer -> name in the files. None: under this
        prefix, each spelling lacks a name.
    """
    for spelling in (wanted, [_old_name(name) for name in wanted]):
        stored = [prefix + name for name in spelling]
        if names.issuperset(stored):
            return dict(zip(wanted, stored, strict=True))
    return None


def _old_name(name: str) -> str:
    """Return a parameter's name in checkpoints that were converted from TensorFlow."""
    return _OLD_NAMES.sub(lambda match: _OLD_WORDS[match[0]], name)


def _unread_names(names: set[str], prefix: str) -> list[str]:
    """Return those of some names that are under a prefix and not to be ignored, sorted."""
    unread = []
    for name in sorted(names):
        if name.startswith(prefix) and not _IGNORED.fullmatch(name):
            unread.append(name)
    return unread


def read_config_file(path: Path) -> dict[str, Any]:
    """Read a ``config.json`` or ``params.json``.

    Raises:
        CheckpointError: It is not JSON.
    """
    try:
        config = json.loads(path.read_text())
    except (ValueError, RecursionError) as e:
        raise CheckpointError(f'{path} is not JSON: {e}.') from e
    if not isinstance(config, dict):
        return {}  # the check of its fields reports the first one as missing
    return config


def open_checkpoint(checkpoint: str | FileSource) -> Checkpoint:
    """Find a checkpoint's files and read its configuration.

    Args:
        checkpoint (str | FileSource): See :func:`lm4ve.llm.sources.find_files`.

    Raises:
        CheckpointError: There is no such checkpoint, it has no configuration, or its
            configuration is damaged.
    """
    source, weight_file = find_files(checkpoint)
    name = source.name
    gguf = _find_gguf(source, weight_file)
    if gguf is not None:
        config, weights = open_gguf(gguf)
        return Checkpoint(name, config, gguf, partial(dict, weights))
    path = source.find('config.json')
    if path is not None:
        config = read_config_file(path)
        return Checkpoint(
            name, config, path, partial(open_huggingface, source, weight_file)
        )
    path = source.find('params.json')
    if path is not None:
        config, weights = open_meta(source, path, read_config_file(path))
        return Checkpoint(name, config, path, partial(dict, weights))
    files = listing(_file_names(source)) or 'nothing'
    raise CheckpointError(
        f"block.checkpoint='{name}' has neither config.json (Hugging Face) nor "
        f'params.json (Meta); found {files}.'
    )


def _find_gguf(source: FileSource, weight_file: str | None) -> Path | None:
    """Return the GGUF file of a checkpoint, or None if it has another format.

    Args:
        source (FileSource): Where the files are.
        weight_file (str, optional): The one file that the user named. Without it, a
            folder is searched, in which a configuration beside the file comes first.

    Raises:
        CheckpointError: There are several GGUF files, and the user named none.
    """
    if source.folder is None:
        return None
    if weight_file is not None:
        if weight_file.endswith('.gguf'):
            return source.folder / weight_file
        return None
    names = _file_names(source)
    files = []
    for name in names:
        # To open a pipe would wait for somebody who writes into it.
        if name.endswith('.gguf') and (source.folder / name).is_file():
            files.append(name)
    if not files or any(name in names for name in CONFIG_FILES):
        return None
    if len(files) > 1:
        raise CheckpointError(
            f"'{source.name}' holds several GGUF files. Fix: point at one."
        )
    return source.folder / files[0]


def _file_names(source: FileSource) -> list[str]:
    """Return the names of a folder's files, sorted; an empty list for a hub repository."""
    if source.folder is None:
        return []
    return sorted(path.name for path in source.folder.iterdir())
