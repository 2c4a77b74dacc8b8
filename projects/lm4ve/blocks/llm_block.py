"""``LLMBlock``: layers of a language model as one module ``[B, N, D] -> [B, N, D]``.

Frozen, bidirectional and without rotary by default, as in the paper (arXiv
2310.12973, section 3). This file owns what the block *is*: which layers, what
of it trains, how it is told apart in a checkpoint. What a layer computes is in
``layer.py``, where weights come from in ``checkpoint.py``.
"""
import hashlib
import inspect
import json
from typing import Dict, Optional, Sequence

import torch
from mmengine.logging import print_log
from mmengine.registry import MODELS
from torch import Tensor, nn

from lm4ve.blocks.checkpoint import LanguageModel, open_language_model
from lm4ve.blocks.frozen import Frozen, count_parameters, frozen_tensors
from lm4ve.blocks.layer import LLMLayer, Queries, Rotary
from lm4ve.errors import CheckpointError, UserError

_DTYPES = dict(
    float32=torch.float32, bfloat16=torch.bfloat16, float16=torch.float16)
_TRAINABLE = ('none', 'norms', 'all')
# Entries of the state dict beside the trained parameters.
SOURCE_KEY = 'llm_source'
EMBEDDED = 'embedded.'


@MODELS.register_module()
class LLMBlock(nn.Module):
    """Layers of a language model as a visual encoder layer.

    Args:
        checkpoint (str, optional): A local folder or file in Hugging Face or
            Meta layout, ``package:<name>``, or a hub id ``org/name[@rev]``.
            None needs ``arch``.
        layers (Sequence[int]): Which layers, in this order; negative counts
            from the end. Defaults to the last one.
        pretrained (bool): False gives the same shape with the family's random
            initialisation: the control. Defaults to True.
        seed (int): Of that initialisation. Drawn on the CPU with a generator
            of its own, so every rank and every resume gets the same weights.
        trainable (str): What of the block trains: 'none', 'norms' or 'all'.
        causal (bool): Keep the language model's causal mask.
        rotary (bool): Keep its rotary position embedding.
        final_norm (bool): Apply the model's final norm with unit gain after
            the last layer, as the released code does. Nothing for families
            without one (bert, roberta, opt-350m).
        dtype (str): Storage and compute type: 'float32', 'bfloat16' or
            'float16'. Autocast is off inside the block.
        arch (dict, optional): ``model_type`` and config fields, to build a
            random block without a checkpoint.

    Attributes:
        embed_dims (int): D, the language model's width.
        source (dict): What the frozen weights are: name, layers, fingerprint.

    Raises:
        UserError: An argument is out of range; subclasses of it for
            checkpoints and unsupported models.
    """

    def __init__(self,
                 checkpoint: Optional[str] = None,
                 layers: Sequence[int] = (-1, ),
                 pretrained: bool = True,
                 seed: int = 0,
                 trainable: str = 'none',
                 causal: bool = False,
                 rotary: bool = False,
                 final_norm: bool = True,
                 dtype: str = 'float32',
                 arch: Optional[dict] = None) -> None:
        super().__init__()
        if trainable not in _TRAINABLE:
            raise UserError(f"block.trainable='{trainable}' must be one of "
                            f'{", ".join(_TRAINABLE)}.')
        if dtype not in _DTYPES:
            raise UserError(f"block.dtype='{dtype}' must be one of "
                            f'{", ".join(_DTYPES)}.')
        if trainable != 'none' and dtype != 'float32':
            raise UserError(
                f"block.trainable='{trainable}' with block.dtype='{dtype}': "
                'updates are lost in 16-bit weights, and loss scaling refuses '
                "them. Fix: block.dtype='float32' (mixed precision still "
                'works around the block).')
        self.checkpoint, self.arch = checkpoint, arch
        self.pretrained = bool(pretrained and checkpoint is not None)
        self.seed, self.trainable = seed, trainable
        self.causal = causal
        self.dtype = _DTYPES[dtype]
        model = open_language_model(checkpoint, arch, weights=self.pretrained)
        self.embed_dims: int = model.config.hidden_size
        self.layer_indices = model.resolve_layers(layers)
        # Not registered: its table stays fp32, whatever the block is cast to.
        self.__dict__['_rotary'] = _RotaryTables(model) if rotary else None

        parts, fingerprint = self._build(model, final_norm)
        self.layers = parts.layers
        self.final_norm = parts.final_norm
        self.source = dict(
            format=1,
            source=model.name,
            model_type=model.config.model_type,
            layers=self.layer_indices,
            pretrained=self.pretrained,
            seed=None if self.pretrained else seed,
            fingerprint=fingerprint)
        print_log(f'LLMBlock: {self.describe()}', logger='current')

    def describe(self) -> str:
        """One line: which layers of what, and how many parameters train."""
        trained, frozen = count_parameters(self)
        s = self.source
        origin = 'pre-trained' if s['pretrained'] else f'random, seed {s["seed"]}'
        return (f"layers {s['layers']} of '{s['source']}' ({s['model_type']}, "
                f'D={self.embed_dims}, {origin}), {frozen:,} frozen and '
                f'{trained:,} trainable parameters, {self.dtype}')

    # ------------------------------------------------------------- building
    def _build(self, model: LanguageModel, with_final_norm: bool):
        """Build layers and final norm; return them and their fingerprint."""
        digest = hashlib.sha256()
        parts = nn.Module()
        # The CPU generator alone: torch.manual_seed would touch CUDA's too.
        state = torch.default_generator.get_state()
        try:
            torch.default_generator.manual_seed(self.seed)
            make = model.load_layer if self.pretrained else model.random_layer
            parts.layers = nn.ModuleList(
                LLMLayer(
                    make(i, self.dtype, digest), model.spec, model.config,
                    self._wrap) for i in self._distinct(self.layer_indices))
        finally:
            torch.default_generator.set_state(state)
        norm = model.final_norm(self.dtype) if with_final_norm else None
        parts.final_norm = None if norm is None else self._wrap(norm, True)
        return parts, digest.hexdigest()

    @staticmethod
    def _distinct(indices: Sequence[int]) -> Sequence[int]:
        if len(set(indices)) != len(indices):
            raise UserError(f'block.layers={tuple(indices)} names a layer '
                            'twice. Fix: name each layer once.')
        return indices

    def _wrap(self, part: nn.Module, is_norm: bool) -> nn.Module:
        if self.trainable == 'all' or (self.trainable == 'norms' and is_norm):
            return part.requires_grad_(True)
        return Frozen(part)

    def init_weights(self) -> None:
        """Give trained parts their source's weights back.

        Hosts initialise every Linear and norm of a model before they call
        this; frozen parts are out of their reach.
        """
        if self.trainable == 'none':
            return
        model = open_language_model(
            self.checkpoint, self.arch, weights=self.pretrained)
        fresh, _ = self._build(model, self.final_norm is not None)
        values = dict(fresh.named_parameters())
        with torch.no_grad():
            for name, param in self.named_parameters():
                param.copy_(values[name])

    def _apply(self, fn, recurse: bool = True):
        super()._apply(fn, recurse)
        # Somebody may have cast the whole model: compute in what is there.
        tensors = list(frozen_tensors(self).values()) + list(self.parameters())
        self.dtype = tensors[0].dtype
        return self

    # ------------------------------------------------------------ computing
    def forward(self,
                x: Tensor,
                padding_mask: Optional[Tensor] = None,
                queries: Queries = None) -> Tensor:
        """Run the block.

        Args:
            x (Tensor): ``[B, N, D]``.
            padding_mask (Tensor, optional): Bool ``[B, N]``, True where a
                token is padding. Padding is never attended to; its own
                outputs mean nothing.
            queries (slice | Tensor, optional): Which tokens' outputs are
                wanted: None (all), a slice over N, or int64 ``[B, Q]`` with
                indices from 0. The last layer computes only these.

        Returns:
            Tensor: ``[B, N, D]`` or ``[B, Q, D]``, in ``x.dtype``.

        Raises:
            UserError: A shape is wrong, or a sample is all padding.
        """
        self._check(x, padding_mask, queries)
        self._follow(x.device)
        mask = self._mask(x, padding_mask, None)
        last = len(self.layers) - 1
        with torch.autocast(x.device.type, enabled=False):
            h = x.to(self.dtype)
            for i, layer in enumerate(self.layers):
                wanted = queries if i == last else None
                if i == last and queries is not None and self.causal:
                    mask = self._mask(x, padding_mask, queries)
                h = layer(h, mask, wanted, self._rotary_of(i, x))
            if self.final_norm is not None:
                h = self.final_norm(h)
        return h.to(x.dtype)

    def _check(self, x: Tensor, padding_mask: Optional[Tensor],
               queries: Queries) -> None:
        if x.dim() != 3 or x.shape[-1] != self.embed_dims:
            raise UserError(
                f'LLMBlock takes [B, N, {self.embed_dims}], got '
                f'{list(x.shape)}. Fix: the mapper before it must give the '
                "language model's width, block.embed_dims.")
        if isinstance(queries, Tensor):
            if (queries.dim() != 2 or queries.shape[0] != x.shape[0]
                    or queries.dtype != torch.int64):
                raise UserError(
                    'queries must be a slice or int64 indices '
                    f'[{x.shape[0]}, Q], got {queries.dtype} '
                    f'{list(queries.shape)}.')
        elif not (queries is None or isinstance(queries, slice)):
            raise UserError(
                f'queries must be a slice or int64 indices [{x.shape[0]}, Q], '
                f'got {queries!r}.')
        if padding_mask is None:
            return
        if padding_mask.shape != x.shape[:2] or (padding_mask.dtype
                                                 != torch.bool):
            raise UserError(
                f'padding_mask must be bool {list(x.shape[:2])} (True = '
                f'padding), got {padding_mask.dtype} '
                f'{list(padding_mask.shape)}.')
        if not torch.compiler.is_compiling():
            full = padding_mask.all(dim=1)
            if full.any():
                raise UserError(
                    f'padding_mask marks every token of sample(s) '
                    f'{full.nonzero().flatten().tolist()} as padding; there '
                    'is nothing to attend to. Fix: drop empty samples before '
                    'batching, or check that True means padding.')

    def _mask(self, x: Tensor, padding_mask: Optional[Tensor],
              queries: Queries) -> Optional[Tensor]:
        """Where queries may look: bool ``[B or 1, 1, Q or 1, N]`` or None."""
        mask = None
        if padding_mask is not None:
            mask = ~padding_mask[:, None, None, :]
        if self.causal:
            keys = torch.arange(x.shape[1], device=x.device)
            at = keys[queries] if isinstance(queries, slice) else (
                keys if queries is None else queries)
            past = at[..., None] >= keys
            past = past[:, None] if past.dim() == 3 else past[None, None]
            mask = past if mask is None else past & mask
        return mask

    def _rotary_of(self, position: int, x: Tensor) -> Rotary:
        tables = self.__dict__['_rotary']
        if tables is None:
            return None
        return tables(self.layer_indices[position], x.shape[1], x.device)

    def _follow(self, device: torch.device) -> None:
        """Move frozen weights to the input's device.

        ``.to()`` moves them, but FSDP moves only registered parameters.
        """
        hidden = [m for m in self.modules() if isinstance(m, Frozen)]
        first = next((t for m in hidden for _, t in m.tensors()), None)
        if first is not None and first.device != device:
            for module in hidden:
                module.to(device)

    # ---------------------------------------------------------- checkpoints
    def frozen_state(self) -> Dict[str, Tensor]:
        """The frozen tensors, for a self-contained release file."""
        return {
            EMBEDDED + name: t.detach().cpu()
            for name, t in frozen_tensors(self).items()
        }

    def _save_to_state_dict(self, destination, prefix, keep_vars) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        record = json.dumps(self.source).encode()
        # A tensor, since distributed init and EMA walk over tensors only.
        destination[prefix + SOURCE_KEY] = torch.tensor(
            list(record), dtype=torch.uint8)

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, strict,
                              missing_keys, unexpected_keys, error_msgs):
        record = state_dict.pop(prefix + SOURCE_KEY, None)
        start = prefix + EMBEDDED
        embedded = {
            k[len(start):]: state_dict.pop(k)
            for k in list(state_dict) if k.startswith(start)
        }
        if record is None:
            missing_keys.append(prefix + SOURCE_KEY)
        elif frozen_tensors(self):
            self._accept(_parse(record, prefix + SOURCE_KEY), embedded)
        super()._load_from_state_dict(state_dict, prefix, local_metadata,
                                      strict, missing_keys, unexpected_keys,
                                      error_msgs)

    def _accept(self, record: dict, embedded: Dict[str, Tensor]) -> None:
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
                    'Fix: use the config that was released beside it.')
            with torch.no_grad():
                for name, tensor in mine.items():
                    tensor.copy_(embedded[name])
            self.source = record
            return
        raise CheckpointError(
            'The checkpoint was made with other frozen weights than the '
            f'config asks for. Checkpoint: {_tell(record)}. Config: '
            f'{_tell(self.source)}. Fix: set model.neck.block.checkpoint, '
            'layers, pretrained and seed to the checkpoint\'s.')


def _parse(record: Tensor, key: str) -> dict:
    try:
        source = json.loads(bytes(record.tolist()))
        _tell(source)  # has every field
    except (ValueError, KeyError, TypeError) as e:
        raise CheckpointError(
            f"'{key}' of the checkpoint is damaged ({type(e).__name__}: {e}). "
            'It records which frozen weights the model was trained with. '
            'Fix: copy the checkpoint again.') from e
    return source


def _tell(source: dict) -> str:
    origin = 'pre-trained' if source['pretrained'] else (
        f"random with seed {source['seed']}")
    return (f"layers {source['layers']} of '{source['source']}' "
            f"({source['model_type']}, {origin}, fingerprint "
            f"{source['fingerprint'][:12]})")


class _RotaryTables:
    """cos and sin of a model's rotary embedding, in fp32, by length."""

    def __init__(self, model: LanguageModel) -> None:
        self.module = model.rotary()
        if self.module is None:
            raise UserError(
                f"block.rotary=True, but '{model.config.model_type}' has no "
                'rotary embedding. Fix: remove the field.')
        self.layer_types = None
        if 'layer_type' in inspect.signature(self.module.forward).parameters:
            self.layer_types = model.config.layer_types
        self._cache: dict = {}

    def __call__(self, layer: int, length: int, device: torch.device):
        kind = self.layer_types[layer] if self.layer_types else None
        key = (kind, length, device)
        if key not in self._cache:
            positions = torch.arange(length)[None]
            args = (torch.zeros(1), positions) + ((kind, ) if kind else ())
            with torch.no_grad():
                cos, sin = self.module(*args)
            self._cache[key] = cos.to(device), sin.to(device)
        return self._cache[key]
