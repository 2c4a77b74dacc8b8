"""GGUF files, which llama.cpp writes: one file with the configuration and quantized weights.

The header is read here, not by ``gguf.GGUFReader``: that one keeps an array for each of the
tokenizer's strings (100 MB for a vocabulary of 49,000) and trusts every count in the file.
What the numbers mean comes from the library: types, block sizes, names and ``dequantize``.
A tensor is mapped and dequantized, some rows at a time, when it is read.
"""

import mmap
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from lm4ve.errors import CheckpointError, UserError
from lm4ve.llm.meta_layout import rotary_rows_to_huggingface

# struct's letters of the scalar types, by GGUF's numbers; 8 is a text, 9 an array.
_SCALARS = {
    0: 'B',
    1: 'b',
    2: 'H',
    3: 'h',
    4: 'I',
    5: 'i',
    6: 'f',
    7: '?',
    10: 'Q',
    11: 'q',
    12: 'd',
}
_TEXT, _ARRAY = 8, 9
_LONGEST_NAME = 1000
#: Values that are dequantized at a time, 4 MB in fp32.
_CHUNK = 1 << 20

#: Architecture -> model_type. llama.cpp leaves the layers of these as they are but for the
#: order of llama's rotated rows.
_ARCHITECTURES = dict(llama='llama', qwen2='qwen2', qwen3='qwen3')
_ROTATED = ('llama',)
# Field of the header, after the architecture -> field of config.json.
_FIELDS = {
    'block_count': 'num_hidden_layers',
    'embedding_length': 'hidden_size',
    'feed_forward_length': 'intermediate_size',
    'attention.head_count': 'num_attention_heads',
    'attention.head_count_kv': 'num_key_value_heads',
    'attention.layer_norm_rms_epsilon': 'rms_norm_eps',
    'attention.key_length': 'head_dim',
}
_NEEDED = ('num_hidden_layers', 'hidden_size', 'intermediate_size', 'num_attention_heads')
_LARGEST = 10**6


@dataclass(frozen=True)
class Stored:
    """Where a tensor lies: shape as ``nn.Linear.weight`` has it, type, first byte, length."""

    shape: tuple[int, ...]
    kind: Any
    start: int
    size: int


class _Header:
    """Reads a header's numbers, never beyond the end of the file."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.size = file, size

    def number(self, letter: str) -> Any:
        length = struct.calcsize(letter)
        data = self.file.read(length)
        if len(data) < length:
            raise ValueError('it ends within its header')
        return struct.unpack(f'<{letter}', data)[0]

    def skip(self, length: int) -> None:
        if length > self.size - self.file.tell():
            raise ValueError('a length in its header goes beyond the end of the file')
        self.file.seek(length, 1)

    def count(self, smallest: int) -> int:
        """Read a number of entries that take ``smallest`` bytes each or more."""
        count: int = self.number('Q')
        if count * smallest > self.size - self.file.tell():
            raise ValueError(f'a count in its header, {count}, goes beyond the end of the file')
        return count

    def text(self, longest: int = _LONGEST_NAME) -> str:
        length = self.count(1)
        if length > longest:
            raise ValueError(f'a name in its header has {length} bytes')
        return self.file.read(length).decode()

    def value(self) -> Any:
        """Read a field's value; arrays and long texts are passed over and give None."""
        kind = self.number('I')
        if kind == _TEXT:
            length = self.count(1)
            if length <= _LONGEST_NAME:
                return self.file.read(length).decode()
            self.skip(length)
        elif kind == _ARRAY:
            self._skip_array()
        elif kind in _SCALARS:
            return self.number(_SCALARS[kind])
        else:
            raise ValueError(f'a field of its header has the unknown type {kind}')
        return None

    def _skip_array(self) -> None:
        kind = self.number('I')
        if kind in _SCALARS:
            width = struct.calcsize(_SCALARS[kind])
            self.skip(self.count(width) * width)
        elif kind == _TEXT:
            for _ in range(self.count(8)):
                self.skip(self.number('Q'))
        else:
            raise ValueError(f'an array of its header has the type {kind}')


class GGUFFile:
    """One ``*.gguf`` file under the names of ``transformers``' layers.

    Args:
        path (Path): The file.

    Raises:
        CheckpointError: It is damaged, or of an architecture that is not known here.
        UserError: The package ``gguf`` is not installed.
    """

    def __init__(self, path: Path) -> None:
        try:
            import gguf
        except ImportError as e:
            raise UserError(
                f'{path} is a GGUF file, which needs the package gguf. Fix: pip install '
                '"lm4ve[gguf]" or pip install gguf'
            ) from e
        self.path = path
        try:
            with open(path, 'rb') as file:
                self.fields, self._stored = _read_header(file, path.stat().st_size, gguf)
        except (ValueError, KeyError, OSError, OverflowError) as e:
            raise _damaged(path, e) from e
        self.architecture = str(self.fields.get('general.architecture'))
        if self.architecture not in _ARCHITECTURES:
            raise CheckpointError(
                f"{path} holds the architecture '{self.architecture}'. lm4ve reads GGUF files of "
                f'{", ".join(_ARCHITECTURES)}. Fix: use the release in safetensors.'
            )
        self.config = self._config()
        self._names = self._huggingface_names(gguf)

    def names(self) -> Iterable[str]:
        return self._names.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        return self._stored[self._names[name]].shape

    def read(self, name: str) -> Tensor:
        """Return one tensor, dequantized to float32."""
        from gguf.quants import dequantize

        stored = self._stored[self._names[name]]
        rows = stored.shape[0] if len(stored.shape) > 1 else 1
        weight = torch.empty(stored.shape, dtype=torch.float32)
        flat = weight.view(rows, -1)
        step = max(1, _CHUNK // max(1, flat.shape[1]))
        try:
            # A map of its own, so that it ends with the reading.
            with open(self.path, 'rb') as file:
                first = stored.start // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
                length = stored.start + stored.size - first
                bytes_ = mmap.mmap(file.fileno(), length, access=mmap.ACCESS_READ, offset=first)
            data = np.frombuffer(bytes_, np.uint8, stored.size, stored.start - first)
            data = data.reshape(rows, -1)
            for i in range(0, rows, step):
                # The copy puts numbers of more than a byte on their boundaries.
                piece = dequantize(data[i : i + step].copy(), stored.kind)
                flat[i : i + step] = torch.from_numpy(np.ascontiguousarray(piece, np.float32))
        except (ValueError, NotImplementedError, OSError) as e:
            raise _damaged(self.path, e) from e
        return self._in_order(name, weight)

    def _in_order(self, name: str, weight: Tensor) -> Tensor:
        """Undo llama.cpp's order of the rows that rotary embedding turns."""
        heads = None
        if self.architecture in _ROTATED:
            if '.q_proj.' in name:
                heads = self.config['num_attention_heads']
            elif '.k_proj.' in name:
                heads = self.config['num_key_value_heads']
        if heads is None:
            return weight
        if len(weight) % (2 * heads):
            raise _damaged(self.path, ValueError(f'{name} has {len(weight)} rows, {heads} heads'))
        rows = weight.view(len(weight), -1)
        return rotary_rows_to_huggingface(rows, heads).view(weight.shape)

    def _config(self) -> dict[str, Any]:
        """What the model's ``config.json`` would say."""
        start = f'{self.architecture}.'
        config: dict[str, Any] = dict(model_type=_ARCHITECTURES[self.architecture])
        for field, name in _FIELDS.items():
            value: Any = self.fields.get(start + field)
            if value is None and name not in _NEEDED:
                continue
            if type(value) not in (int, float) or not 0 < value <= _LARGEST:
                raise _damaged(
                    self.path, ValueError(f'{start}{field} is {value!r}, expected a number above 0')
                )
            config[name] = value
        config.setdefault('num_key_value_heads', config['num_attention_heads'])
        if any(k.startswith(f'{start}rope.scaling') for k in self.fields) or (
            'rope_freqs.weight' in self._stored
        ):
            # Left out, it would only be wrong with rotary=True, and there in silence.
            raise CheckpointError(
                f'{self.path} scales its rotary embedding ({start}rope.scaling or rope_freqs), '
                'which lm4ve does not read from GGUF. Fix: use the release in safetensors.'
            )
        theta = float(self.fields.get(f'{start}rope.freq_base') or 1e4)
        config['rope_parameters'] = dict(rope_type='default', rope_theta=theta)
        if config['model_type'] == 'llama':
            config['attention_bias'] = 'blk.0.attn_q.bias' in self._stored
        return config

    def _huggingface_names(self, gguf: Any) -> dict[str, str]:
        """Map ``transformers``' names of the layers' tensors to the stored ones."""
        kinds = {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}
        # Only the layers are asked for; deeper than the file is no layer of it.
        depth = min(self.config['num_hidden_layers'], len(self._stored))
        table = gguf.get_tensor_name_map(kinds[self.architecture], depth).mapping
        names = {}
        for name, (_, stored) in table.items():
            # Of a tensor's names in many programs, the one of transformers' decoders.
            if name.startswith('model.layers.') and name.split('.')[2].isdigit():
                for suffix in ('.weight', '.bias'):
                    if stored + suffix in self._stored:
                        names[name + suffix] = stored + suffix
        return names


def _read_header(file: BinaryIO, size: int, gguf: Any) -> tuple[dict[str, Any], dict[str, Stored]]:
    """Read the fields and the places of all tensors.

    Raises:
        ValueError: It is no GGUF file, or a number in it is impossible.
    """
    header = _Header(file, size)
    if file.read(4) != b'GGUF':
        raise ValueError('it does not begin with GGUF')
    version = header.number('I')
    if version not in (2, 3):
        raise ValueError(f'its version is {version}, expected 2 or 3')
    tensors, fields = header.count(24), header.count(13)
    found = {}
    for _ in range(fields):
        name = header.text()
        found[name] = header.value()
    places: dict[str, tuple[tuple[int, ...], Any, int, int]] = {}
    for _ in range(tensors):
        name = header.text()
        if '..' in name or '/' in name or '\\' in name or name in places:
            raise ValueError(f"a tensor is called '{name}', or two are")
        places[name] = _place(header, gguf)
    step = found.get('general.alignment') or 32
    if not isinstance(step, int) or step <= 0 or step > 1 << 20:
        raise ValueError(f'general.alignment is {step!r}')
    start = -(-file.tell() // step) * step
    stored = {
        name: Stored(shape, kind, start + offset, length)
        for name, (shape, kind, offset, length) in places.items()
    }
    for name, place in stored.items():
        if place.start + place.size > size:
            raise ValueError(f"'{name}' goes beyond its end; it is cut off")
    return found, stored


def _place(header: _Header, gguf: Any) -> tuple[tuple[int, ...], Any, int, int]:
    """Read a tensor's shape, type, offset and length in bytes."""
    dims = header.number('I')
    if not 1 <= dims <= 4:
        raise ValueError(f'a tensor has {dims} dimensions')
    # GGUF counts from the fastest dimension.
    shape = tuple(header.number('Q') for _ in range(dims))[::-1]
    kind = gguf.GGMLQuantizationType(header.number('I'))
    values, bytes_ = gguf.GGML_QUANT_SIZES[kind]
    if min(shape) < 1 or max(shape) > 1 << 40 or shape[-1] % values:
        raise ValueError(f'a tensor of type {kind.name} has the shape {list(shape)}')
    number = 1
    for n in shape:
        number *= n
    return shape, kind, header.number('Q'), number // values * bytes_


def _damaged(path: Path, error: Exception) -> CheckpointError:
    reason = ' '.join(str(error).split()) or type(error).__name__
    return CheckpointError(
        f'{path} cannot be read as a GGUF file: {reason}. Fix: copy or download it again.'
    )
