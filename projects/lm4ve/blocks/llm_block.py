"""``LLMBlock``: layers of a language model as one module ``[B, N, D] -> [B, N, D]``.

Frozen, bidirectional and without rotary by default, as in the paper (arXiv
2310.12973, section 3). This file owns what the block *is*: which layers, what
of it trains, what runs. What a layer computes is in ``layer.py`` and ``low_rank.py``,
where weights come from in ``checkpoint.py``, what a saved state says in ``record.py``.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from mmengine.registry import MODELS
from torch import Tensor, nn

from lm4ve.blocks.chunked import freeze
from lm4ve.blocks.frozen import Frozen, count_parameters, frozen_tensors
from lm4ve.blocks.language_model import LanguageModel, open_language_model
from lm4ve.blocks.layer import LLMLayer, Queries, Rotary
from lm4ve.blocks.low_rank import FoldMemory, cheapest, explain, may_absorb, run_layer, sizes_of
from lm4ve.blocks.provenance import RecordsSource
from lm4ve.blocks.rotary import RotaryTables
from lm4ve.errors import UserError
from lm4ve.llm.fingerprint import Fingerprint

_DTYPES = dict(float32=torch.float32, bfloat16=torch.bfloat16, float16=torch.float16)
_TRAINABLE = ('none', 'norms', 'all')


@MODELS.register_module()
class LLMBlock(RecordsSource):
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

    def __init__(
        self,
        checkpoint: str | None = None,
        layers: Sequence[int] = (-1,),
        pretrained: bool = True,
        seed: int = 0,
        trainable: str = 'none',
        causal: bool = False,
        rotary: bool = False,
        final_norm: bool = True,
        dtype: str = 'float32',
        arch: dict | None = None,
    ) -> None:
        super().__init__()
        if trainable not in _TRAINABLE:
            raise UserError(
                f"block.trainable='{trainable}' must be one of {', '.join(_TRAINABLE)}."
            )
        if dtype not in _DTYPES:
            raise UserError(f"block.dtype='{dtype}' must be one of {', '.join(_DTYPES)}.")
        if trainable != 'none' and dtype != 'float32':
            raise UserError(
                f"block.trainable='{trainable}' with block.dtype='{dtype}': updates are lost in "
                "16-bit weights, and loss scaling refuses them. Fix: block.dtype='float32' (mixed "
                'precision still works around the block).'
            )
        self.checkpoint, self.arch = checkpoint, arch
        self.pretrained = bool(pretrained and checkpoint is not None)
        self.seed, self.trainable = seed, trainable
        self.causal = causal
        self.dtype = _DTYPES[dtype]
        model = open_language_model(checkpoint, arch)
        self.embed_dims: int = model.config.hidden_size
        self.layer_indices = model.resolve_layers(layers)
        # Not registered: its table stays fp32, whatever the block is cast to.
        self.__dict__['_folded'] = FoldMemory()
        self.__dict__['_rotary'] = RotaryTables(model) if rotary else None

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
            fingerprint=fingerprint,
        )
        print_log(f'LLMBlock: {self.describe()}', logger='current')

    def describe(self) -> str:
        """One line: which layers of what, and how many parameters train."""
        trained, frozen = count_parameters(self)
        s = self.source
        origin = 'pre-trained' if s['pretrained'] else f'random, seed {s["seed"]}'
        return (
            f"layers {s['layers']} of '{s['source']}' ({s['model_type']}, D={self.embed_dims}, "
            f'{origin}), {frozen:,} frozen and {trained:,} trainable parameters, {self.dtype}'
        )

    # ------------------------------------------------------------- building
    def _build(self, model: LanguageModel, with_final_norm: bool):
        """Build layers and final norm; return them and their fingerprint."""
        digest = Fingerprint()
        parts = nn.Module()
        # The CPU generator alone: torch.manual_seed would touch CUDA's too.
        state = torch.default_generator.get_state()
        try:
            torch.default_generator.manual_seed(self.seed)
            make = model.load_layer if self.pretrained else model.random_layer
            parts.layers = nn.ModuleList(
                LLMLayer(make(i, self.dtype, digest), model.spec, model.config, self._wrap)
                for i in self.layer_indices
            )
        finally:
            torch.default_generator.set_state(state)
        norm = model.final_norm(self.dtype) if with_final_norm else None
        parts.final_norm = None if norm is None else self._wrap(norm, True)
        return parts, digest.hexdigest()

    def _wrap(self, part: nn.Module, is_norm: bool) -> nn.Module:
        if self.trainable == 'all' or (self.trainable == 'norms' and is_norm):
            return part.requires_grad_(True)
        return freeze(part, is_norm)

    def init_weights(self) -> None:
        """Give trained parts their source's weights back.

        Hosts initialise every Linear and norm of a model before they call
        this; frozen parts are out of their reach.
        """
        if self.trainable == 'none':
            return
        model = open_language_model(self.checkpoint, self.arch)
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
    def forward(
        self, x: Tensor, padding_mask: Tensor | None = None, queries: Queries = None
    ) -> Tensor:
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
        if x.dim() != 3 or x.shape[-1] != self.embed_dims:
            raise UserError(
                f'LLMBlock takes [B, N, {self.embed_dims}], got {list(x.shape)}. Fix: the mapper '
                "before it must give the language model's width, block.embed_dims."
            )
        return self._run(x, padding_mask, queries, self._plain_first)

    def forward_mapped(
        self,
        x: Tensor,
        weight: Tensor,
        padding_mask: Tensor | None = None,
        queries: Queries = None,
        low_rank: str = 'auto',
    ) -> Tensor:
        """Run the block on ``F.linear(x, weight)``, using that its rank is C.

        Args:
            x (Tensor): Tokens before the mapper, ``[B, N, C]``.
            weight (Tensor): The mapper, ``[D, C]``, without bias.
            padding_mask, queries: As of :meth:`forward`.
            low_rank (str): 'fold', 'absorb', 'off', or 'auto' for the one with
                the fewest operations (see ``low_rank.py``).

        Returns:
            Tensor: As :meth:`forward` gives for the mapped tokens.
        """
        method = self._method(x, queries, low_rank)
        if method == 'off':
            return self(F.linear(x, weight), padding_mask, queries)

        remember = self.__dict__['_folded'].for_weights(self.layers[0], weight)

        def first(layer, h, mask, wanted, rotary):
            return run_layer(layer, h, weight, method, self.dtype, mask, wanted, rotary, remember)

        return self._run(x, padding_mask, queries, first)

    def _run(
        self, x: Tensor, padding_mask: Tensor | None, queries: Queries, first: Callable
    ) -> Tensor:
        """Run all layers; ``first`` runs the first one."""
        self._check(x, padding_mask, queries)
        self._follow(x.device)
        mask = self._mask(x, padding_mask, None)
        last = len(self.layers) - 1
        h = x
        with torch.autocast(x.device.type, enabled=False):
            for i, layer in enumerate(self.layers):
                wanted = queries if i == last else None
                if i == last and queries is not None and self.causal:
                    mask = self._mask(x, padding_mask, queries)
                run = first if i == 0 else self._plain
                h = run(layer, h, mask, wanted, self._rotary_of(i, x))
            if self.final_norm is not None:
                h = self.final_norm(h)
        return h.to(x.dtype)

    def _plain_first(self, layer, h, mask, wanted, rotary) -> Tensor:
        return layer(h.to(self.dtype), mask, wanted, rotary)

    @staticmethod
    def _plain(layer, h, mask, wanted, rotary) -> Tensor:
        return layer(h, mask, wanted, rotary)

    # ------------------------------------------------- low rank of the input
    def check_low_rank(self, low_rank: str) -> None:
        """Refuse a method that this block's first layer cannot use.

        Raises:
            UserError: 'absorb' with rotary embedding or k norms.
        """
        if low_rank == 'absorb' and not self._may_absorb():
            raise UserError(
                "neck.low_rank='absorb' moves the projections past the keys, which "
                'block.rotary=True and the k norms of some families do not allow '
                f"('{self.source['model_type']}'). Fix: low_rank='fold' or 'auto'."
            )

    def _may_absorb(self) -> bool:
        return may_absorb(self.layers[0], self.__dict__['_rotary'] is not None)

    def _method(self, x: Tensor, queries: Queries, low_rank: str) -> str:
        """Pick a method for this batch; 'auto' says once what it picked."""
        if low_rank != 'auto':
            return low_rank
        # Only the last layer is asked for a part of the tokens.
        queries = queries if len(self.layers) == 1 else None
        sizes = sizes_of(self.layers[0], x, queries)
        method = cheapest(sizes, self._may_absorb())
        told = self.__dict__.setdefault('_told', set())
        if method not in told and not torch.compiler.is_compiling():
            told.add(method)
            print_log(
                f"LLMBlock: low_rank='auto' chose '{method}' for {explain(sizes)}", logger='current'
            )
        return method

    def _check(self, x: Tensor, padding_mask: Tensor | None, queries: Queries) -> None:
        if isinstance(queries, Tensor):
            if queries.dim() != 2 or queries.shape[0] != x.shape[0] or queries.dtype != torch.int64:
                raise UserError(
                    f'queries must be a slice or int64 indices [{x.shape[0]}, Q], got '
                    f'{queries.dtype} {list(queries.shape)}.'
                )
        elif not (queries is None or isinstance(queries, slice)):
            raise UserError(
                f'queries must be a slice or int64 indices [{x.shape[0]}, Q], got {queries!r}.'
            )
        if padding_mask is None:
            return
        if padding_mask.shape != x.shape[:2] or (padding_mask.dtype != torch.bool):
            raise UserError(
                f'padding_mask must be bool {list(x.shape[:2])} (True = padding), got '
                f'{padding_mask.dtype} {list(padding_mask.shape)}.'
            )
        if not torch.compiler.is_compiling():
            full = padding_mask.all(dim=1)
            if full.any():
                raise UserError(
                    'padding_mask marks every token of sample(s) '
                    f'{full.nonzero().flatten().tolist()} as padding; there is nothing to attend '
                    'to. Fix: drop empty samples before batching, or check that True means padding.'
                )

    def _mask(self, x: Tensor, padding_mask: Tensor | None, queries: Queries) -> Tensor | None:
        """Where queries may look: bool ``[B or 1, 1, Q or 1, N]`` or None."""
        mask = None
        if padding_mask is not None:
            mask = ~padding_mask[:, None, None, :]
        if self.causal:
            keys = torch.arange(x.shape[1], device=x.device)
            at = (
                keys[queries]
                if isinstance(queries, slice)
                else (keys if queries is None else queries)
            )
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
        for module in self.modules():
            if isinstance(module, Frozen) and any(t.device != device for _, t in module.tensors()):
                module.to(device)
