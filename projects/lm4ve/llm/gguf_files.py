"""GGUF files, which llama.cpp writes: one file with the configuration and quantized weights.

``gguf.GGUFReader`` reads the header and maps the tensors, behind a check of bounds: the
library trusts every count in the file. A tensor is dequantized, some rows at a time, when
it is read.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lm4ve.errors import CheckpointError
from lm4ve.llm.meta_layout import rotary_rows_to_huggingface

#: Values that are dequantized at a time, 4 MB in fp32.
_CHUNK = 1 << 20

#: Architecture, which is the model_type too -> whether the rows of q and k are in Meta's order.
#: llama.cpp leaves everything else of these layers as it is.
_ARCHITECTURES = dict(llama=True, qwen2=False, qwen3=False)
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


def _open(path: Path) -> Any:
    """Open a file with ``gguf.GGUFReader``, bounded by the file's size."""
    import gguf

    class BoundedReader(gguf.GGUFReader):  # type: ignore[misc]
        """Stops at the end of the file, and skips arrays: no field of ours is one."""

        def _get(self, offset: int, dtype: Any, count: int = 1, *args: Any, **kwargs: Any) -> Any:
            if not 0 <= offset + int(count) * np.dtype(dtype).itemsize <= len(self.data):
                raise ValueError('it is cut off, or a count in it goes beyond its end')
            return super()._get(offset, dtype, count, *args, **kwargs)

        def _get_field_parts(self, orig_offs: int, raw_type: int) -> Any:
            if raw_type != gguf.GGUFValueType.ARRAY:
                return super()._get_field_parts(orig_offs, raw_type)
            kind, start = int(self._get(orig_offs, np.uint32)[0]), orig_offs + 12
            count = int(self._get(orig_offs + 4, np.uint64)[0])
            if kind == gguf.GGUFValueType.STRING:
                end = start
                for _ in range(count):
                    end += 8 + int(self._get(end, np.uint64)[0])
            else:
                end = start + count * np.dtype(self.gguf_scalar_to_np[kind]).itemsize
            return end - orig_offs, [], [], [gguf.GGUFValueType.ARRAY]

    return BoundedReader(path)


class GGUFFile:
    """One ``*.gguf`` file under the names of ``transformers``' layers.

    Args:
        path (Path): The file.

    Raises:
        CheckpointError: It is damaged, or of an architecture that is not known here.
    """

    def __init__(self, path: Path) -> None:
        try:
            reader = _open(path)
            fields = {k: f.contents() for k, f in reader.fields.items() if f.parts}
            tensors = {t.name: t for t in reader.tensors}
        except ModuleNotFoundError as e:
            raise CheckpointError(
                f'{path} needs the package gguf: pip install "lm4ve[gguf]".'
            ) from e
        except (ValueError, LookupError, OSError, OverflowError) as e:
            raise CheckpointError(f'{path} cannot be read as a GGUF file: {e}.') from e
        self.path = path
        self.architecture = str(fields.get('general.architecture'))
        if self.architecture not in _ARCHITECTURES:
            raise CheckpointError(
                f"{path} holds the architecture '{self.architecture}'. lm4ve reads GGUF files of "
                f'{", ".join(_ARCHITECTURES)}. Fix: use the release in safetensors.'
            )
        self.config = self._config(fields, tensors)
        self._tensors = self._by_huggingface_name(tensors)

    def names(self) -> Iterable[str]:
        return self._tensors.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        # GGUF counts from the fastest dimension.
        return tuple(int(n) for n in self._tensors[name].shape[::-1])

    def read(self, name: str) -> Tensor:
        """Return one tensor, dequantized to float32."""
        from gguf.quants import dequantize

        stored = self._tensors[name]
        weight = torch.empty(self.shape(name))
        rows = weight.view(-1, weight.shape[-1])
        data = np.reshape(stored.data, (len(rows), -1))
        step = max(1, _CHUNK // rows.shape[1])
        for i in range(0, len(rows), step):
            piece = dequantize(data[i : i + step], stored.tensor_type)
            rows[i : i + step] = torch.from_numpy(np.array(piece, np.float32))
        if _ARCHITECTURES[self.architecture] and ('.q_proj.' in name or '.k_proj.' in name):
            kind = 'attention' if '.q_proj.' in name else 'key_value'
            heads = self.config[f'num_{kind}_heads']
            columns = weight.view(len(weight), -1)
            return rotary_rows_to_huggingface(columns, heads).view(weight.shape)
        return weight

    def _config(self, fields: dict[str, Any], tensors: dict[str, Any]) -> dict[str, Any]:
        """What the model's ``config.json`` would say."""
        start = f'{self.architecture}.'
        config: dict[str, Any] = dict(model_type=self.architecture)
        config.update({n: fields[start + f] for f, n in _FIELDS.items() if start + f in fields})
        config.setdefault('num_key_value_heads', config.get('num_attention_heads'))
        scaled = any(k.startswith(f'{start}rope.scaling') for k in fields)
        if scaled or 'rope_freqs.weight' in tensors:
            # Left out, it would only be wrong with rotary=True, and there in silence.
            raise CheckpointError(
                f'{self.path} scales its rotary embedding ({start}rope.scaling or rope_freqs), '
                'which lm4ve does not read from GGUF. Fix: use the release in safetensors.'
            )
        theta = float(fields.get(f'{start}rope.freq_base') or 1e4)
        config['rope_parameters'] = dict(rope_type='default', rope_theta=theta)
        if self.architecture == 'llama':
            config['attention_bias'] = 'blk.0.attn_q.bias' in tensors
        return config

    def _by_huggingface_name(self, tensors: dict[str, Any]) -> dict[str, Any]:
        """Key the layers' tensors by ``transformers``' names."""
        import gguf

        kinds = {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}
        depth = min(int(self.config['num_hidden_layers']), len(tensors))
        table = gguf.get_tensor_name_map(kinds[self.architecture], depth).mapping
        return {
            name + suffix: tensors[stored + suffix]
            for name, (_, stored) in table.items()
            # Of a tensor's names in many programs, the one of transformers' decoders.
            if name.startswith('model.layers.') and name.split('.')[2].isdigit()
            for suffix in ('.weight', '.bias')
            if stored + suffix in tensors
        }
