"""``LLMBlock``: layers of a language model as one module ``[B, N, D] -> [B, N, D]``.

Frozen, bidirectional and without rotary by default, as in the paper (arXiv
2310.12973, section 3). This file owns what the block *is*: which layers, what
of it trains, what runs. What a layer computes is in ``layer.py`` and ``low_rank.py``,
how it gets its weights in ``language_model.py``, what a saved state records of them in
``provenance.py``.
"""

from collections.abc import Callable, Sequence
from typing import Any, Self, cast

import torch
from mmengine.logging import print_log
from mmengine.registry import MODELS
from torch import Tensor, nn

from lm4ve.blocks.frozen import Frozen, count_parameters, frozen_tensors, is_plain
from lm4ve.blocks.language_model import LanguageModel, open_language_model
from lm4ve.blocks.layer import LLMLayer, Queries, Rotary
from lm4ve.blocks.low_rank import (
    cheapest,
    count_macs,
    count_queries,
    factorize,
    is_exact,
    run_layer,
)
from lm4ve.blocks.provenance import ProvenanceMixin
from lm4ve.errors import UserError, check
from lm4ve.llm.fingerprint import Fingerprint

_DTYPES = dict(float32=torch.float32, bfloat16=torch.bfloat16, float16=torch.float16)
_TRAINABLE = ('none', 'norms', 'all')


@MODELS.register_module()
class LLMBlock(ProvenanceMixin):
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
        source (dict): The record of the frozen weights: name, layers, fingerprint, and
            the settings that they are used with.

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
        if trainable != 'none':  # updates are lost in 16-bit weights
            check(f"block.dtype with block.trainable='{trainable}'", dtype, choices=('float32',))
        self.checkpoint, self.arch = checkpoint, arch
        self.pretrained = bool(pretrained and checkpoint is not None)
        self.seed, self.trainable = seed, trainable
        self.causal = causal
        self.dtype = _DTYPES[dtype]
        model = open_language_model(checkpoint, arch)
        self.embed_dims: int = model.config.hidden_size
        self.layer_indices = model.resolve_layers(layers)
        self._rotary: Any = None
        if rotary:
            from lm4ve.blocks.rotary import RotaryTables

            self._rotary = RotaryTables(model)
        self._logged: set[str] = set()  # the choices of 'auto' that stand in the log
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
        print_log(f'LLMBlock: {self.describe()}', logger='current')

    @property
    def may_absorb(self) -> bool:
        """Whether nothing acts on the first layer's keys and values before the scores."""
        first = cast(LLMLayer, self.layers[0])
        return first.keys_are_linear and not (self._rotary is not None and first.uses_rotary)

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
        return Frozen(part)

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

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
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
                indices from 0. The last layer computes only these.

        Returns:
            Tensor: ``[B, N, D]`` or ``[B, Q, D]``, in ``x.dtype``.

        Raises:
            UserError: A shape is wrong, or a sample is all padding.
        """
        if x.dim() != 3 or x.shape[-1] != self.embed_dims:
            raise UserError(f'LLMBlock takes [B, N, {self.embed_dims}], got {list(x.shape)}.')
        return self.run(x, padding_mask, queries)

    def forward_mapped(
        self,
        x: Tensor,
        mapper: nn.Linear,
        padding_mask: Tensor | None = None,
        queries: Queries = None,
        method: str = 'fold',
    ) -> Tensor:
        """Run the block on ``mapper(x)``, using that its rank is C.

        Args:
            x (Tensor): Tokens before the mapper, ``[B, N, C]``.
            mapper (nn.Linear): C to D, without bias.
            padding_mask, queries: See :meth:`forward`.
            method (str): 'fold' or 'absorb', from :meth:`choose_low_rank`.

        Returns:
            Tensor: What :meth:`forward` gives for the mapped tokens.
        """
        layer = cast(LLMLayer, self.layers[0])

        def first(x: Tensor, mask: Tensor | None, queries: Queries, rotary: Rotary) -> Tensor:
            factors = factorize(layer, mapper.weight, self.dtype)
            return run_layer(layer, x, mask, queries, rotary, factors, method)

        return self.run(x, padding_mask, queries, first)

    def run(
        self,
        x: Tensor,
        padding_mask: Tensor | None,
        queries: Queries,
        first: Callable[..., Tensor] | None = None,
    ) -> Tensor:
        """Run all layers; ``first``, if given, stands for the first one and the mapper."""
        _check(x, padding_mask, queries)
        # .to() moves frozen weights, but FSDP moves only registered parameters.
        for module in self.modules():
            if isinstance(module, Frozen):
                module.follow(x.device)
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

    def check_low_rank(self, low_rank: str) -> None:
        """Refuse 'absorb' where something stands between projections and scores.

        Raises:
            UserError: That is rotary embedding, norms of keys or values, clipping or sinks.
        """
        if not self.may_absorb:
            kind = self.source['model_type']
            field = f"neck.low_rank with block.rotary=True or the keys' norms or sinks of '{kind}'"
            check(field, low_rank, choices=('auto', 'fold', 'off'))

    def can_fold(self, mapper: nn.Module) -> bool:
        """Whether the weights of a mapper and of the first layer say all of what they compute."""
        return is_exact(self.layers[0], mapper) and is_plain(self, LLMBlock)

    def choose_low_rank(
        self,
        x: Tensor,
        queries: Queries = None,
        low_rank: str = 'auto',
        mapper: nn.Module | None = None,
    ) -> str:
        """Return how the rank of a batch is used: 'fold', 'absorb', or 'off' for not at all.

        Args:
            x (Tensor): Tokens before the mapper, ``[B, N, C]``.
            queries: See :meth:`forward`.
            low_rank (str): 'auto' for the method with the fewest operations, which is written to
                the log once; others are returned.
            mapper (nn.Module, optional): The mapper; 'off' unless :meth:`can_fold`.
        """
        if mapper is not None and not self.can_fold(mapper):
            return 'off'
        if low_rank != 'auto':
            return low_rank
        if x.shape[-1] >= self.embed_dims:
            return 'off'
        # Only of the last layer a part of the tokens is wanted.
        queries = queries if len(self.layers) == 1 else None
        costs = count_macs(cast(LLMLayer, self.layers[0]), x, queries)
        method = cheapest(costs, self.may_absorb)
        if method not in self._logged and not torch.compiler.is_compiling():
            self._logged.add(method)
            counts = ', '.join(f'{name} {macs / 1e9:.2f}' for name, macs in costs.items())
            print_log(
                f"LLMBlock: low_rank='auto' chose '{method}' for {list(x.shape)}, of which "
                f'{count_queries(queries, x.shape[1])} tokens are read (GMAC up to the heads: '
                f'{counts})',
                logger='current',
            )
        return method

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


def _check(x: Tensor, padding_mask: Tensor | None, queries: Queries) -> None:
    """Refuse what would give a wrong result in silence: see :meth:`LLMBlock.forward`."""
    if queries is not None and not isinstance(queries, slice):
        check('queries', queries, kind=Tensor)
        if queries.dim() != 2 or queries.shape[0] != x.shape[0] or queries.dtype != torch.int64:
            raise UserError(
                f'queries must be a slice or int64 indices [{x.shape[0]}, Q], got {queries.dtype} '
                f'{list(queries.shape)}.'
            )
    if padding_mask is None:
        return
    if padding_mask.shape != x.shape[:2] or padding_mask.dtype != torch.bool:
        raise UserError(
            f'padding_mask must be bool {list(x.shape[:2])} (True = padding), got '
            f'{padding_mask.dtype} {list(padding_mask.shape)}.'
        )
    if not torch.compiler.is_compiling() and padding_mask.all(dim=1).any():
        raise UserError('padding_mask marks every token of a sample as padding.')
