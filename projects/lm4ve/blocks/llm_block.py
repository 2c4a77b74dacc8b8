"""``LLMBlock``: layers of a language model as one module ``[B, N, D] -> [B, N, D]``.

Frozen, bidirectional and without rotary by default, as in the paper (arXiv 2310.12973,
section 3). This file owns what the block is; what a layer computes is in ``layer.py``
and ``low_rank.py``, how it gets its weights in ``language_model.py``, what a state
records of them in ``provenance.py``.
"""

from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from mmengine.logging import print_log
from mmengine.registry import MODELS
from torch import Tensor, nn

from lm4ve.blocks.frozen import (
    Frozen,
    acts_on_modules,
    count_parameters,
    frozen_tensors,
    is_plain,
)
from lm4ve.blocks.language_model import LanguageModel, Window
from lm4ve.blocks.layer import LLMLayer, Queries, check_padding, take_tokens
from lm4ve.blocks.low_rank import Factors, count_macs, factorize, run_layer
from lm4ve.blocks.provenance import ProvenanceMixin
from lm4ve.errors import UserError, check
from lm4ve.llm.fingerprint import fingerprint

_DTYPES = dict(float32=torch.float32, bfloat16=torch.bfloat16, float16=torch.float16)
_ORIGINS = {True: 'pre-trained', False: 'random', 'permuted': 'permuted'}
_EIGHT_BITS = ('int8', 'float8')
_DTYPES |= dict.fromkeys(
    _EIGHT_BITS, torch.bfloat16
)  # of all but their products in 8 bits
#: What trains -> the types that it trains in: updates are lost in 16-bit weights.
_TRAINABLE = dict(
    none=(*_DTYPES,),
    norms=('float32',),
    all=('float32',),
    lora=('float32', 'bfloat16', 'float16'),
)


@MODELS.register_module()
class LLMBlock(ProvenanceMixin):
    """Layers of a language model as a visual encoder layer.

    Args:
        checkpoint (str, optional): A local folder or file in Hugging Face,
            Meta or GGUF format, ``package:<name>``, or a hub id ``org/name[@rev]``.
            None needs ``arch``.
        layers (Sequence[int]): Which layers, in this order; negative counts
            from the end. Defaults to the last one.
        pretrained (bool | str): False gives the same shape with the family's random
            initialization: the control. 'permuted' keeps the weights, each matrix's in
                a random
            order: the same statistics without structure. Defaults to True.
        seed (int): Seed of initialization and order, which are drawn on the CPU with a
            generator of their own, so that every rank and every resume gets the same
            weights.
        trainable (str): The parts of the block that train: 'none', 'norms', 'all', or
            'lora' for low-rank updates beside frozen weights.
        lora (dict, optional): With 'lora' the fields of
            :class:`lm4ve.blocks.adapters.LoRA`. ``targets`` are parts of a layer:
            'q_proj' and 'v_proj' by default, 'k_proj', 'o_proj', and the layers of its
            MLP.
        causal (bool | dict): Keep the language model's causal mask, as LLM4Seg (arXiv
            2506.18034) does. dict(soft=0.2) closes it in training:
            :class:`lm4ve.blocks.variants.SoftMask`.
        causal_suffix (int): Only the last so many tokens are causal: they read all
            tokens before them, which read one another (DeepSeek-OCR 2's learned
            queries).
        window (bool): Keep its sliding or chunked window too, where it has one: with
            ``causal``, and in models that are bidirectional themselves. False: layers
            see all tokens.
        rotary (bool | str): Keep its rotary position embedding. 'one-frequency' turns
            all channels by one radian a token; 'llm4seg' does too, with cosine and sine
            swapped, as the code of LLM4Seg has it.
        final_norm (bool): Apply the model's final norm with unit gain after
            the last layer, as the released code does. It does nothing for families
            that have no such norm (bert, roberta, opt-350m).
        dtype (str): Storage and compute type: 'float32', 'bfloat16' or
            'float16'; experimental are 'int8' and 'float8', with products of 8 bits in
            bfloat16 otherwise. Autocast is off inside the block.
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

    layers: Any  # nn.ModuleList of LLMLayer

    def __init__(
        self,
        checkpoint: str | None = None,
        layers: Sequence[int] = (-1,),
        pretrained: bool | str = True,
        seed: int = 0,
        trainable: str = 'none',
        causal: bool | dict[str, float] = False,
        window: bool = True,
        rotary: bool | str = False,
        final_norm: bool = True,
        dtype: str = 'float32',
        arch: dict[str, Any] | None = None,
        lora: dict[str, Any] | None = None,
        causal_suffix: int = 0,
    ) -> None:
        super().__init__()
        check('block.trainable', trainable, choices=_TRAINABLE)
        types = _TRAINABLE[trainable]
        check(f"block.dtype with block.trainable='{trainable}'", dtype, choices=types)
        self.soft_mask: Any = None
        plain = pretrained in (True, False) and isinstance(causal, bool)
        if lora is not None or causal_suffix or not plain:
            from lm4ve.blocks.variants import SoftMask, check_variants

            check_variants(
                trainable, lora, causal, causal_suffix, pretrained, checkpoint
            )
            self.soft_mask = None if isinstance(causal, bool) else SoftMask(causal)
        self.checkpoint, self.arch, self.seed = checkpoint, arch, seed
        self.pretrained: bool | str = pretrained if checkpoint is not None else False
        self.trainable, self.causal, self.causal_suffix = (
            trainable,
            causal,
            causal_suffix,
        )
        self.dtype = _DTYPES[dtype]
        self.eight_bits = dtype if dtype in _EIGHT_BITS else None
        model = LanguageModel(checkpoint, arch)
        self.embed_dims: int = model.config.hidden_size
        self.layer_indices = model.resolve_layers(layers)
        windows = [model.window(i) for i in self.layer_indices]
        self.windows = [w if w and (causal or w.both_ways) else None for w in windows]
        self._rotary: Any = None
        if rotary:
            from lm4ve.blocks.rotary import RotaryTables

            self._rotary = RotaryTables(model, rotary)
        self._logged: set[str] = set()  # the choices of 'auto' that stand in the log
        self.lora: Any = 'none' if trainable != 'lora' else lora or {}
        self.layers, self.final_norm, digest = self._build(model, final_norm)
        turned = bool(rotary) and any(layer.uses_rotary for layer in self.layers)
        self.source = dict(
            **dict(format=1, source=model.name, model_type=model.config.model_type),
            **dict(
                layers=self.layer_indices,
                pretrained=self.pretrained,
                fingerprint=digest,
            ),
            seed=None if self.pretrained is True else seed,
            **dict(
                causal=causal, causal_suffix=causal_suffix, lora=self.lora, dtype=dtype
            ),
            window=window if any(self.windows) else None,
            rotary=turned and rotary,
            final_norm=self.final_norm is not None,
            config=model.settings(self.layer_indices, turned),
        )
        trained, frozen = count_parameters(self)
        print_log(
            f"LLMBlock: layers {self.layer_indices} of '{model.name}' ({model.config.model_type}, "
            f'D={self.embed_dims}, {dtype}, {_ORIGINS[self.pretrained]}), '
            f'{frozen:,} frozen and {trained:,} trainable parameters',
            logger='current',
        )

    # ------------------------------------------------------------- building
    def _build(
        self, model: LanguageModel, with_final_norm: bool
    ) -> tuple[nn.ModuleList, nn.Module | None, str]:
        """Build layers and final norm; return them and the fingerprint of the layers."""
        built: list[nn.Module] = []
        # The CPU generator alone: torch.manual_seed would touch CUDA's too.
        state = torch.default_generator.get_state()
        try:
            torch.default_generator.manual_seed(self.seed)
            weights = model.load_layers(
                self.layer_indices, self.dtype, self.pretrained, built
            )
            digest = fingerprint(weights)
        finally:
            torch.default_generator.set_state(state)
        layers = nn.ModuleList(
            LLMLayer(layer, model.spec, model.config) for layer in built
        )
        layers.requires_grad_(True)
        for layer in layers:
            if self.eight_bits:
                from lm4ve.blocks.eight_bits import quantize_products

                quantize_products(layer, self.eight_bits)
            if self.trainable == 'lora':
                from lm4ve.blocks.adapters import expose_linears

                layer.mlp = expose_linears(layer.get_submodule('mlp'))
            frozen = {
                part: Frozen(part)
                for name, part in layer.named_children()
                if self.trainable == 'none'
                or (self.trainable == 'norms' and 'norm' not in name)
                or (
                    self.trainable == 'lora'
                    and not (name == 'mlp' or isinstance(part, Frozen))
                )
            }
            layer._modules.update(
                {n: frozen[m] for n, m in layer._modules.items() if m in frozen}
            )
        if self.trainable == 'lora':
            from lm4ve.blocks.adapters import add_lora

            #: What a checkpoint records of the adapters.
            self.lora = add_lora(
                layers, self.lora, 'block.lora', ('q_proj', 'v_proj'), self.seed
            )
        norm = None
        if with_final_norm and model.spec.final_norm:
            norm = model.final_norm(self.dtype).requires_grad_(True)
            norm = Frozen(norm) if self.trainable in ('none', 'lora') else norm
        return layers, norm, digest

    def init_weights(self) -> None:
        """Give trained parts their source's weights back.

        Hosts initialize every Linear and norm of a model before they call
        this; frozen parts are out of their reach.
        """
        if self.trainable == 'none':
            return
        if self.trainable == 'lora':
            for module in self.layers.modules():
                if hasattr(module, 'lora_A'):
                    module.init_weights()
            return
        model = LanguageModel(self.checkpoint, self.arch)
        layers, norm, _ = self._build(model, self.final_norm is not None)
        self.layers.load_state_dict(layers.state_dict())
        if self.final_norm is not None and norm is not None:
            self.final_norm.load_state_dict(norm.state_dict())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        # The whole model may have been cast: compute in the type of its weights.
        self.dtype = [*frozen_tensors(self).values(), *self.parameters()][0].dtype
        self.source['dtype'] = self.eight_bits or str(self.dtype).removeprefix('torch.')
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
                f'LLMBlock takes [B, N, {self.embed_dims}], got {list(x.shape)}.'
            )
        return self.run(x, padding_mask, queries)

    def run(
        self,
        x: Tensor,
        padding_mask: Tensor | None,
        queries: Queries,
        mapper: Tensor | Factors | None = None,
        method: str = 'off',
    ) -> Tensor:
        """Run all layers, with a mapper before them if one is given.

        Args:
            x (Tensor): ``[B, N, D]``, or before the mapper ``[B, N, C]``.
            padding_mask, queries: See :meth:`forward`.
            mapper (Tensor | Factors, optional): The mapper's weight ``[D, C]``, or it
                and the first layer's projections as factors.
            method (str): How the rank C is used: 'fold' or 'absorb', from
                :meth:`choose_low_rank`.
        """
        _check(x, padding_mask, queries)
        # .to() moves frozen weights, but FSDP moves only registered parameters.
        for module in self.modules():
            if isinstance(module, Frozen):
                module.follow(x.device)
        real = None if padding_mask is None else ~padding_mask[:, None, None, :]
        h = x.to(self.dtype) if mapper is None else x
        with torch.autocast(x.device.type, enabled=False):
            for i, layer in enumerate(self.layers):
                wanted = queries if i == len(self.layers) - 1 else None
                mask = real
                window = self.windows[i] if self.source['window'] else None
                if self.causal or self.causal_suffix or window:
                    prefix = 0 if self.causal else x.shape[1] - self.causal_suffix
                    seen = _seen(x, wanted, prefix, window)
                    mask = seen if real is None else seen & real
                    if self.soft_mask is not None:
                        mask = self.soft_mask(seen, real, self.training)
                rotary = self._rotary and self._rotary(
                    self.layer_indices[i], x.shape[1], x.device
                )
                if i == 0 and mapper is not None:
                    if isinstance(mapper, Tensor):
                        mapper = factorize(layer, mapper, self.dtype)
                    h = run_layer(layer, h, mask, wanted, rotary, mapper, method)
                else:
                    h = layer(h, mask, wanted, rotary)
            if self.final_norm is not None:
                h = self.final_norm(h)
        return h.to(x.dtype)

    @property
    def may_absorb(self) -> bool:
        """Whether ``low_rank.absorb`` computes the same as the first layer's attention."""
        first: Any = self.layers[0]
        turned = self._rotary is not None and first.uses_rotary
        plain = all(
            is_plain(norm, nn.Identity) for norm in (first.k_norm, first.v_norm)
        )
        plain = plain and self.soft_mask is None
        return plain and not turned and first.clip is None and first.sinks is None

    def can_fold(self, mapper: nn.Module) -> bool:
        """Return whether mapper, norm and projections compute what their classes define.

        Only then do their weights determine the result: no hook, adapter or bias of the
        mapper, and nothing that acts on modules from outside.
        """
        layer: Any = self.layers[0]
        norm = nn.Identity if layer.norm_form is None else layer.norm_form[0]
        if acts_on_modules((LLMBlock, LLMLayer, Frozen, nn.Linear, norm)):
            return False
        return (
            is_plain(self, LLMBlock)
            and is_plain(layer, LLMLayer)
            and is_plain(layer.attention_norm, norm)
            and all(map(is_plain, (mapper, layer.q_proj, layer.k_proj, layer.v_proj)))
            and mapper.bias is None
        )

    def choose_low_rank(
        self, mapper: nn.Module, x: Tensor, queries: Queries, low_rank: str
    ) -> str:
        """Return how the rank of a batch is used: 'fold', 'absorb', or 'off' for not at all.

        Args:
            mapper (nn.Module): The mapper; 'off' unless :meth:`can_fold`.
            x (Tensor): Tokens before the mapper, ``[B, N, C]``.
            queries: See :meth:`forward`.
            low_rank (str): 'auto' for the method with the fewest operations, which is
                written to the log once; others are returned.
        """
        if low_rank == 'off' or not self.can_fold(mapper):
            return 'off'
        if low_rank != 'auto':
            return low_rank
        if x.shape[-1] >= self.embed_dims:
            return 'off'
        method = 'off'
        # Only of the last layer a part of the tokens is wanted.
        costs = count_macs(
            self.layers[0], x, queries if len(self.layers) == 1 else None
        )
        for (
            name,
            macs,
        ) in costs.items():  # `min` with a key takes no symbols of a compiler
            if macs < costs[method] and (name != 'absorb' or self.may_absorb):
                method = name
        if method not in self._logged and not torch.compiler.is_compiling():
            self._logged.add(method)
            counts = ', '.join(
                f'{name} {macs / 1e9:.2f}' for name, macs in costs.items()
            )
            text = f"LLMBlock: low_rank='auto' chose '{method}' for {list(x.shape)}"
            print_log(f'{text} (GMAC up to the heads: {counts})', logger='current')
        return method


def _seen(x: Tensor, queries: Queries, prefix: int, window: Window | None) -> Tensor:
    """Return where queries may look: bool ``[B or 1, 1, Q, N]``; all at the first ``prefix``."""
    keys = torch.arange(x.shape[1], device=x.device)
    if not isinstance(queries, Tensor):
        queries = (keys if queries is None else keys[queries])[None]
    queries = queries[:, None, :, None]
    seen = (queries >= keys) | (keys < prefix)
    if window is None:
        return seen
    if window.chunked:
        return seen & (queries // window.width == keys // window.width)
    return seen & ((queries - keys).abs() < window.width)


def _check(x: Tensor, padding_mask: Tensor | None, queries: Queries) -> None:
    """Refuse what would give a wrong result in silence: see :meth:`LLMBlock.forward`."""
    if queries is not None and not isinstance(queries, slice):
        check('queries', queries, kind=Tensor)
        if (
            queries.dim() != 2
            or queries.shape[0] != x.shape[0]
            or queries.dtype != torch.int64
        ):
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
    check_padding(padding_mask)


@MODELS.register_module()
class MLPBlock(nn.Module):
    """GELU and LayerNorm in the place of a language model block.

    The capacity control of the paper's section 4: is it the block, or just more
    parameters? (The other control, a block from random initialization, is
    ``LLMBlock(pretrained=False)``.)

    Args:
        embed_dims (int): The width D of the block that it stands for.
    """

    def __init__(self, embed_dims: int) -> None:
        super().__init__()
        self.embed_dims = embed_dims
        self.act = nn.GELU()
        self.norm = nn.LayerNorm(embed_dims)

    def forward(
        self, x: Tensor, padding_mask: Tensor | None = None, queries: Queries = None
    ) -> Tensor:
        """Map ``[B, N, D]`` to ``[B, Q, D]``. Tokens do not mix, so no mask is needed."""
        out: Tensor = self.norm(self.act(take_tokens(x, queries)))
        return out
