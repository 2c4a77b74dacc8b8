"""``LLMBlock``: layers of a language model as one module ``[B, N, D] -> [B, N, D]``.

Frozen, bidirectional and without rotary by default, as in the paper (arXiv
2310.12973, section 3). This file owns what the block *is*: which layers, what
of it trains, what runs. What a layer computes is in ``layer.py`` and ``low_rank.py``,
how it gets its weights in ``language_model.py``, what a saved state says of them in
``provenance.py``.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Self, cast

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from mmengine.registry import MODELS
from torch import Tensor, nn

from lm4ve.blocks.fold_memory import FoldMemory
from lm4ve.blocks.frozen import Frozen, count_parameters, frozen_tensors
from lm4ve.blocks.frozen_in_pieces import freeze
from lm4ve.blocks.language_model import LanguageModel, open_language_model
from lm4ve.blocks.layer import LLMLayer, Queries
from lm4ve.blocks.low_rank import cheapest, explain, may_absorb, run_layer, sizes_of
from lm4ve.blocks.provenance import RecordsFrozenSource
from lm4ve.blocks.rotary import RotaryTables
from lm4ve.errors import UserError, check
from lm4ve.llm.fingerprint import Fingerprint

_DTYPES = dict(float32=torch.float32, bfloat16=torch.bfloat16, float16=torch.float16)
_TRAINABLE = ('none', 'norms', 'all')


@MODELS.register_module()
class LLMBlock(RecordsFrozenSource):
    """Layers of a language model as a visual encoder layer.

    Args:
        checkpoint (str, optional): A local folder or file in Hugging Face or
            Meta layout, ``package:<name>``, or a hub id ``org/name[@rev]``.
            None needs ``arch``.
        layers (Sequence[int]): Which layers, in this order; negative counts
            from the end. Defaults to the last one.
        pretrained (bool): False gives the same shape with the family's random
            initialization: the control. Defaults to True.
        seed (int): Seed of that initialization, which is drawn on the CPU with a generator
            of its own, so that every rank and every resume gets the same weights.
        trainable (str): The parts of the block that train: 'none', 'norms' or 'all'.
        causal (bool): Keep the language model's causal mask.
        rotary (bool): Keep its rotary position embedding.
        final_norm (bool): Apply the model's final norm with unit gain after
            the last layer, as the released code does. It does nothing for families
            that have no such norm (bert, roberta, opt-350m).
        dtype (str): Storage and compute type: 'float32', 'bfloat16' or
            'float16'. Autocast is off inside the block.
        arch (dict, optional): ``model_type`` and config fields, to build a
            random block without a checkpoint.

    Attributes:
        embed_dims (int): D, the language model's width.
        source (dict): Says what the frozen weights are: name, layers, fingerprint, and
            with which settings they are used.

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
        arch: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        check('block.trainable', trainable, choices=_TRAINABLE)
        check('block.dtype', dtype, choices=_DTYPES)
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
        self._rotary = RotaryTables(model) if rotary else None
        self._fold_memory = FoldMemory()
        self._told: set[str] = set()  # the methods that 'auto' has said it chose
        self._settled: list[str] | None = None  # what 'auto' chose, inside of `traceable`
        self.layers, self.final_norm, fingerprint = self._build(model, final_norm)
        self.source = dict(
            format=1,
            source=model.name,
            model_type=model.config.model_type,
            layers=self.layer_indices,
            pretrained=self.pretrained,
            seed=None if self.pretrained else seed,
            fingerprint=fingerprint,
            causal=causal,
            rotary=rotary and any(cast(LLMLayer, x).uses_rotary for x in self.layers),
            final_norm=self.final_norm is not None,
            dtype=dtype,
        )
        self._held.reset(self)
        print_log(f'LLMBlock: {self.describe()}', logger='current')

    @property
    def _first(self) -> LLMLayer:
        return cast(LLMLayer, self.layers[0])

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
    def _build(
        self, model: LanguageModel, with_final_norm: bool
    ) -> tuple[nn.ModuleList, nn.Module | None, str]:
        """Build layers and final norm; return them and their fingerprint."""
        digest = Fingerprint()
        # The CPU generator alone: torch.manual_seed would touch CUDA's too.
        state = torch.default_generator.get_state()
        try:
            torch.default_generator.manual_seed(self.seed)
            make = model.load_layer if self.pretrained else model.random_layer
            layers = nn.ModuleList(
                LLMLayer(make(i, self.dtype, digest), model.spec, model.config, self._wrap)
                for i in self.layer_indices
            )
        finally:
            torch.default_generator.set_state(state)
        norm = model.final_norm(self.dtype) if with_final_norm else None
        return layers, None if norm is None else self._wrap(norm, True), digest.hexdigest()

    def _wrap(self, part: nn.Module, is_norm: bool) -> nn.Module:
        if self.trainable == 'all' or (self.trainable == 'norms' and is_norm):
            return part.requires_grad_(True)
        return freeze(part, is_norm)

    def init_weights(self) -> None:
        """Give trained parts their source's weights back.

        Hosts initialize every Linear and norm of a model before they call
        this; frozen parts are out of their reach.
        """
        if self.trainable == 'none':
            return
        model = open_language_model(self.checkpoint, self.arch)
        layers, norm, _ = self._build(model, self.final_norm is not None)
        self.layers.load_state_dict(layers.state_dict())
        if self.final_norm is not None and norm is not None:
            self.final_norm.load_state_dict(norm.state_dict())

    def train(self, mode: bool = True) -> Self:
        """Set the mode, as any module does; what was folded is forgotten."""
        self._fold_memory.clear()
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        self._fold_memory.clear()
        # Somebody may have cast the whole model: compute in what is there.
        tensors = [*frozen_tensors(self).values(), *self.parameters()]
        self.dtype = tensors[0].dtype
        self.source['dtype'] = str(self.dtype).removeprefix('torch.')
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
                indices from 0. The last layer computes only what is asked for.

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
        return self._run(x, padding_mask, queries)

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
            padding_mask, queries: See :meth:`forward`.
            low_rank (str): 'fold', 'absorb', 'off', or 'auto' for the one with
                the fewest operations (see ``low_rank.py``).

        Returns:
            Tensor: What :meth:`forward` gives for the mapped tokens.
        """
        method = self.choose_low_rank(x, queries, low_rank)
        if method == 'off':
            out: Tensor = self(F.linear(x, weight), padding_mask, queries)
            return out
        first = partial(
            run_layer,
            self._first,
            weight=weight,
            method=method,
            dtype=self.dtype,
            remember=self._fold_memory.for_weights(self._first, weight),
        )
        return self._run(x, padding_mask, queries, first)

    def _run(
        self,
        x: Tensor,
        padding_mask: Tensor | None,
        queries: Queries,
        first: Callable[..., Tensor] | None = None,
    ) -> Tensor:
        """Run all layers; ``first``, if given, stands for the first one."""
        _check(x, padding_mask, queries)
        self._follow(x.device)
        h = x.to(self.dtype) if first is None else x
        last = len(self.layers) - 1
        with torch.autocast(x.device.type, enabled=False):
            for i, layer in enumerate(self.layers):
                layer_queries = queries if i == last else None
                mask = self._mask(x, padding_mask, layer_queries)
                rotary = self._rotary and self._rotary(self.layer_indices[i], x.shape[1], x.device)
                run = first if i == 0 and first is not None else layer
                h = run(h, mask, layer_queries, rotary)
            if self.final_norm is not None:
                h = self.final_norm(h)
        return h.to(x.dtype)

    # ------------------------------------------------- low rank of the input
    def check_low_rank(self, low_rank: str) -> None:
        """Refuse a method that this block's first layer cannot use.

        Raises:
            UserError: 'absorb' where something stands between projections and scores: rotary
                embedding, norms of keys or values, clipping, sinks.
        """
        if low_rank == 'absorb' and not self._may_absorb():
            raise UserError(
                "neck.low_rank='absorb' moves the projections past the keys, which "
                'block.rotary=True and the key norms, clipping or sinks of some families do not '
                f"allow ('{self.source['model_type']}'). Fix: low_rank='fold' or 'auto'."
            )

    def _may_absorb(self) -> bool:
        return may_absorb(self._first, self._rotary is not None)

    def choose_low_rank(self, x: Tensor, queries: Queries = None, low_rank: str = 'auto') -> str:
        """Return the method that :meth:`forward_mapped` uses for a batch.

        Args:
            x (Tensor): Tokens before the mapper, ``[B, N, C]``.
            queries: See :meth:`forward`.
            low_rank (str): What 'auto' picks is written to the log once; others are returned.
        """
        if low_rank != 'auto':
            return low_rank
        if self._settled:
            return self._settled[0]
        # Only the last layer is asked for a part of the tokens.
        queries = queries if len(self.layers) == 1 else None
        sizes = sizes_of(self._first, x, queries)
        method = cheapest(sizes, self._may_absorb())
        if self._settled is not None:
            self._settled.append(method)
        if method not in self._told and not torch.compiler.is_compiling():
            self._told.add(method)
            print_log(
                f"LLMBlock: low_rank='auto' chose '{method}' for {explain(sizes)}", logger='current'
            )
        return method

    @contextmanager
    def traceable(self) -> Iterator[None]:
        """Decide and fold once, so that a trace that is taken inside holds for every batch.

        The first forward pass inside has to be an eager one without gradients, on a batch
        like those that are to come. In it 'auto' chooses for all passes that follow, and what
        it folds is a constant of the trace.
        """
        self._settled = []
        try:
            with self._fold_memory.pinned():
                yield
        finally:
            self._settled = None

    def _mask(self, x: Tensor, padding_mask: Tensor | None, queries: Queries) -> Tensor | None:
        """Where queries may look: bool ``[B or 1, 1, Q or 1, N]`` or None."""
        visible = None if padding_mask is None else ~padding_mask[:, None, None, :]
        if not self.causal:
            return visible
        keys = torch.arange(x.shape[1], device=x.device)
        if not isinstance(queries, Tensor):
            queries = (keys if queries is None else keys[queries])[None]
        past = (queries[..., None] >= keys)[:, None]
        return past if visible is None else past & visible

    def _follow(self, device: torch.device) -> None:
        """Move frozen weights to the input's device.

        ``.to()`` moves them, but FSDP moves only registered parameters.
        """
        for module in self.modules():
            if isinstance(module, Frozen) and any(t.device != device for _, t in module.tensors()):
                module.to(device)


def _check(x: Tensor, padding_mask: Tensor | None, queries: Queries) -> None:
    batch = x.shape[0]
    if isinstance(queries, Tensor):
        right = queries.dim() == 2 and queries.shape[0] == batch and queries.dtype == torch.int64
        found = f'{queries.dtype} {list(queries.shape)}'
    else:
        right, found = queries is None or isinstance(queries, slice), repr(queries)
    if not right:
        raise UserError(f'queries must be a slice or int64 indices [{batch}, Q], got {found}.')
    if padding_mask is None:
        return
    if padding_mask.shape != x.shape[:2] or padding_mask.dtype != torch.bool:
        raise UserError(
            f'padding_mask must be bool {list(x.shape[:2])} (True = padding), got '
            f'{padding_mask.dtype} {list(padding_mask.shape)}.'
        )
    if not torch.compiler.is_compiling():
        full = padding_mask.all(dim=1)
        if full.any():
            raise UserError(
                f'padding_mask marks every token of sample(s) {full.nonzero().flatten().tolist()} '
                'as padding; there is nothing to attend to. Fix: drop empty samples before '
                'batching, or check that True means padding.'
            )
