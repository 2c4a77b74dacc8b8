"""``LLMBlock``: layers of a language model as one module ``[B, N, D] -> [B, N, D]``.

Frozen, bidirectional and without rotary by default, as in the paper (arXiv 2310.12973,
section 3). A block builds its parts, and runs them in a loop:

    language_model.py   transformers' layers with their weights
    layer.py            one of them as a layer of a visual encoder
    host_layer.py       the library's own layer as one, for families without a spec
    host_family.py      where their layers are, and whether they serve
    masks.py            which tokens a layer attends to
    rotary.py           the tables of its rotary embedding
    freezing.py         what trains
    low_rank/           the first layer together with the mapper before it, for less
    record.py           what a checkpoint says of all this
    provenance.py       the check when one is loaded
"""

from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from mmengine.logging import print_log
from mmengine.registry import MODELS
from torch import Tensor, nn

from lm4ve.blocks.config_fields import record_fields
from lm4ve.blocks.eight_bits import EIGHT_BITS, quantize_products
from lm4ve.blocks.freezing import TRAINABLE, freeze_final_norm, freeze_layer
from lm4ve.blocks.frozen import Frozen, count_parameters, frozen_tensors
from lm4ve.blocks.host_family import check_host_block
from lm4ve.blocks.host_layer import HostLayer, HostRotary
from lm4ve.blocks.language_model import LanguageModel
from lm4ve.blocks.layer import LLMLayer
from lm4ve.blocks.low_rank import (
    CheapestMethod,
    Factors,
    can_absorb,
    can_fold,
    factorize,
    run_layer,
)
from lm4ve.blocks.masks import AttentionMasks, Window, mask_of_padding
from lm4ve.blocks.provenance import ProvenanceMixin
from lm4ve.blocks.record import BlockRecord
from lm4ve.blocks.rotary import RotaryTables
from lm4ve.blocks.seeding import seeded_cpu_generator
from lm4ve.blocks.tokens import Queries, check_inputs
from lm4ve.errors import UserError, check, require
from lm4ve.llm.fingerprint import Fingerprint

#: The field ``dtype`` -> the type of weights that are stored as they are.
_DTYPES = {
    'float32': torch.float32,
    'bfloat16': torch.bfloat16,
    'float16': torch.float16,
    'int8': torch.bfloat16,
    'float8': torch.bfloat16,
}
#: The field ``pretrained`` -> the log's word.
_ORIGINS = {True: 'pre-trained', False: 'random', 'permuted': 'permuted'}
#: Parts of a layer that LoRA adapts by default.
_LORA_TARGETS = ('q_proj', 'v_proj')


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
            a random order: the same statistics without structure. Defaults to True.
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
            :class:`lm4ve.blocks.masks.SoftMask`.
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
        source (dict): The record of the frozen weights, :class:`BlockRecord` as plain
            data, and the settings of the neck that the block is in.
        soft_mask (SoftMask | None): The mask whose progress a neck sets.

    Raises:
        UserError: An argument is out of range; subclasses of it for
            checkpoints and unsupported models.
    """

    layers: Any  # nn.ModuleList of LLMLayer, or of HostLayer

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
        _check_training(trainable, dtype, lora)
        _check_pretrained(pretrained, checkpoint)
        self.checkpoint = checkpoint
        self.arch = arch
        self.pretrained = pretrained
        if checkpoint is None:
            self.pretrained = False
        self.seed = seed
        self.trainable = trainable
        self.dtype = _DTYPES[dtype]
        self.eight_bits = dtype if dtype in EIGHT_BITS else None
        self.causal_suffix = causal_suffix
        self.masks = AttentionMasks(causal, causal_suffix)
        self.soft_mask = self.masks.soft

        model = LanguageModel(checkpoint, arch)
        self.embed_dims: int = model.config.hidden_size
        self.layer_indices = model.resolve_layers(layers)
        if model.host is not None:
            check_host_block(trainable, dtype, self.soft_mask is not None)
            if window:
                model.host.check_windows(self.layer_indices, bool(causal))
        self.windows = [self._find_window(model, i) for i in self.layer_indices]
        self.rotary_tables: RotaryTables | HostRotary | None = None
        if rotary:
            self.rotary_tables = self._build_rotary(model, rotary)
        self.layers, fingerprint = self._build_layers(model)
        #: What a checkpoint records of the adapters.
        self.lora: Any = 'none'
        if TRAINABLE[trainable].has_adapters:
            self.lora = self._add_lora(self.layers, lora or {})
        self.final_norm: nn.Module | None = None
        if final_norm:
            self.final_norm = self._build_final_norm(model)
        self.cheapest_method = CheapestMethod()

        record = self._describe(model, fingerprint, dtype, window, rotary)
        self.source = record.to_dict()
        self._log(dtype)

    # ------------------------------------------------------------- building
    def _find_window(self, model: LanguageModel, index: int) -> Window | None:
        """Return the window of a layer, if it applies to this block."""
        window = model.window(index)
        if window is None:
            return None
        if self.masks.causal or window.both_ways:
            return window
        return None

    def _build_rotary(
        self, model: LanguageModel, rotary: bool | str
    ) -> RotaryTables | HostRotary:
        """Build what makes the rotary tables of the layers."""
        if model.host is None:
            return RotaryTables(model, rotary)
        return model.host.rotary_tables(rotary, self.layer_indices)

    def _build_layers(self, model: LanguageModel) -> tuple[nn.ModuleList, str]:
        """Build the layers; return them and the fingerprint of their weights."""
        layers = nn.ModuleList()
        with seeded_cpu_generator(self.seed), Fingerprint() as fingerprint:
            for index in self.layer_indices:
                own = model.build_layer(
                    index, self.dtype, self.pretrained, fingerprint.add
                )
                layer: nn.Module
                if model.host is None:
                    layer = LLMLayer(own, model.spec, model.config)
                else:
                    layer = model.host.build_layer(own, index, self.trainable)
                layers.append(layer)
        layers.requires_grad_(True)
        for layer in layers:
            if self.eight_bits is not None:
                quantize_products(layer, self.eight_bits)
            freeze_layer(layer, self.trainable)
        return layers, fingerprint.digest

    def _add_lora(self, layers: nn.Module, fields: dict[str, Any]) -> dict[str, Any]:
        """Add adapters to layers; return what a checkpoint records of them."""
        from lm4ve.blocks.adapters import add_lora  # needs peft

        return add_lora(layers, fields, 'block.lora', _LORA_TARGETS, self.seed)

    def _build_final_norm(self, model: LanguageModel) -> nn.Module | None:
        """Build the norm after the last layer; None where the family has none."""
        norm = model.final_norm(self.dtype)
        if norm is None:
            return None
        return freeze_final_norm(norm.requires_grad_(True), self.trainable)

    def _describe(
        self,
        model: LanguageModel,
        fingerprint: str,
        dtype: str,
        window: bool,
        rotary: bool | str,
    ) -> BlockRecord:
        """Return what a checkpoint says of the block.

        Fields that have no effect on these layers are recorded as such, so that
        checkpoints which differ in them alone fit.
        """
        recorded_seed = None
        if self.pretrained is not True:
            recorded_seed = self.seed
        recorded_window = None
        if any(self.windows):
            recorded_window = window
        recorded_rotary: bool | str = False
        if rotary and any(layer.uses_rotary for layer in self.layers):
            recorded_rotary = rotary
        uses_rotary = recorded_rotary is not False
        return BlockRecord(
            source=model.name,
            model_type=model.config.model_type,
            layers=self.layer_indices,
            pretrained=self.pretrained,
            fingerprint=fingerprint,
            seed=recorded_seed,
            lora=self.lora,
            dtype=dtype,
            window=recorded_window,
            rotary=recorded_rotary,
            final_norm=self.final_norm is not None,
            config=record_fields(model.config, self.layer_indices, uses_rotary),
            **self.masks.record(),
        )

    def _log(self, dtype: str) -> None:
        trained, frozen = count_parameters(self)
        print_log(
            f"LLMBlock: layers {self.layer_indices} of '{self.source['source']}' "
            f'({self.source["model_type"]}, D={self.embed_dims}, {dtype}, '
            f'{_ORIGINS[self.pretrained]}), {frozen:,} frozen and {trained:,} trainable '
            'parameters',
            logger='current',
        )

    def init_weights(self) -> None:
        """Give trained parts their source's weights back.

        Hosts initialize every Linear and norm of a model before they call
        this; frozen parts are out of their reach.
        """
        if TRAINABLE[self.trainable].has_adapters:
            for module in self.layers.modules():
                if hasattr(module, 'lora_A'):
                    module.init_weights()
        elif self.trainable != 'none':
            self._restore_trained_parts()

    def _restore_trained_parts(self) -> None:
        """Build the block once more, and take over its weights."""
        model = LanguageModel(self.checkpoint, self.arch)
        layers, _ = self._build_layers(model)
        self.layers.load_state_dict(layers.state_dict())
        if self.final_norm is None:
            return
        norm = self._build_final_norm(model)
        if norm is not None:
            self.final_norm.load_state_dict(norm.state_dict())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        # The whole model may have been cast: compute in the type of its weights.
        weights = [*frozen_tensors(self).values(), *self.parameters()]
        self.dtype = weights[0].dtype
        name = str(self.dtype).removeprefix('torch.')
        self.source['dtype'] = self.eight_bits or name
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
        check_inputs(x, padding_mask, queries)
        self._follow(x.device)
        real = mask_of_padding(padding_mask)
        with torch.autocast(x.device.type, enabled=False):
            out = self._run_layers(x.to(self.dtype), 0, real, queries)
        return out.to(x.dtype)

    def run(
        self,
        x: Tensor,
        padding_mask: Tensor | None,
        queries: Queries,
        mapper: Tensor | Factors,
        method: str,
    ) -> Tensor:
        """Run a mapper and the block, using that the block's input has rank C.

        Args:
            x (Tensor): Tokens before the mapper, ``[B, N, C]``.
            padding_mask, queries: See :meth:`forward`.
            mapper (Tensor | Factors): The mapper's weight ``[D, C]``, or it and the
                first layer's projections as factors.
            method (str): 'fold' or 'absorb', from :meth:`choose_low_rank`.

        Returns:
            Tensor: ``[B, Q, D]``, in ``x.dtype``.

        Raises:
            UserError: See :meth:`forward`.
        """
        check_inputs(x, padding_mask, queries)
        self._follow(x.device)
        real = mask_of_padding(padding_mask)
        layer = self.layers[0]
        with torch.autocast(x.device.type, enabled=False):
            mask, wanted, rotary = self._layer_inputs(0, x, real, queries)
            if isinstance(mapper, Tensor):
                mapper = factorize(layer, mapper, self.dtype)
            hidden = run_layer(layer, x, mask, wanted, rotary, mapper, method)
            out = self._run_layers(hidden, 1, real, queries)
        return out.to(x.dtype)

    def _run_layers(
        self, hidden: Tensor, first: int, real: Tensor | None, queries: Queries
    ) -> Tensor:
        """Run the layers from one on, and the final norm: ``[B, N, D] -> [B, Q, D]``."""
        for i in range(first, len(self.layers)):
            mask, wanted, rotary = self._layer_inputs(i, hidden, real, queries)
            hidden = self.layers[i](hidden, mask, wanted, rotary)
        if self.final_norm is not None:
            hidden = self.final_norm(hidden)
        return hidden

    def _layer_inputs(
        self, i: int, x: Tensor, real: Tensor | None, queries: Queries
    ) -> tuple[Tensor | None, Queries, Any]:
        """Return what a layer gets beside its input: mask, queries and rotary tables.

        The tables are in the layer's own form.

        Args:
            i (int): Its place in the block.
            x (Tensor): All tokens, ``[B, N, ...]``.
            real (Tensor, optional): See :func:`mask_of_padding`.
            queries: The tokens that the block computes.
        """
        is_last = i == len(self.layers) - 1
        wanted = queries if is_last else None
        window = None
        if self.source['window']:  # the record of an older checkpoint switches it off
            window = self.windows[i]
        rows = wanted
        if isinstance(self.layers[i], HostLayer):
            rows = None  # it computes all tokens, and takes those that are wanted
        mask = self.masks(x, real, rows, window, self.training)
        rotary = None
        if self.rotary_tables is not None:
            index = self.layer_indices[i]
            rotary = self.rotary_tables(index, x.shape[1], x.device)
        return mask, wanted, rotary

    def _follow(self, device: torch.device) -> None:
        """Move frozen weights: ``.to()`` does so, but FSDP moves only parameters."""
        for module in self.modules():
            if isinstance(module, Frozen):
                module.follow(device)

    # ------------------------------------------------------------- low rank
    @property
    def may_absorb(self) -> bool:
        """Whether 'absorb' computes the same as the first layer's attention."""
        layer = self.layers[0]
        turns = self.rotary_tables is not None and layer.uses_rotary
        has_soft_mask = self.soft_mask is not None
        return can_absorb(layer, turns, has_soft_mask)

    def can_fold(self, mapper: nn.Module) -> bool:
        """Return whether mapper, norm and projections compute what their classes define.

        Only then do their weights determine the result: no hook, adapter or bias of the
        mapper, and nothing that acts on modules from outside.
        """
        return can_fold(self, LLMBlock, mapper)

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

        Raises:
            UserError: A method is asked for by name, and the family has no spec.
        """
        if isinstance(self.layers[0], HostLayer):
            require(
                low_rank in ('auto', 'off'),
                f"neck.low_rank='{low_rank}': '{self.source['model_type']}' has no "
                'layer spec, and its own layer runs as a whole. Fix: '
                "neck.low_rank='auto'.",
            )
            return 'off'
        if low_rank == 'off' or not self.can_fold(mapper):
            return 'off'
        if low_rank != 'auto':
            return low_rank
        if x.shape[-1] >= self.embed_dims:
            return 'off'
        # Only of the last layer a part of the tokens is wanted.
        wanted = queries if len(self.layers) == 1 else None
        return self.cheapest_method(self.layers[0], x, wanted, self.may_absorb)


def _check_training(trainable: str, dtype: str, lora: Any) -> None:
    """Check the fields that say what trains.

    Raises:
        UserError: One of them has no such value, or they do not go together.
    """
    check('block.trainable', trainable, choices=TRAINABLE)
    field = f"block.dtype with block.trainable='{trainable}'"
    check(field, dtype, choices=TRAINABLE[trainable].dtypes)
    if lora is not None:
        require(
            TRAINABLE[trainable].has_adapters,
            f"block.trainable='{trainable}' with block.lora would train no adapter. "
            "Fix: block.trainable='lora', or leave block.lora out.",
        )


def _check_pretrained(pretrained: bool | str, checkpoint: str | None) -> None:
    """Check where the weights come from.

    Raises:
        UserError: There is no such origin, or no weights to permute.
    """
    check('block.pretrained', pretrained, choices=_ORIGINS)
    if pretrained == 'permuted' and checkpoint is None:
        raise UserError(
            "block.pretrained='permuted' needs weights. Fix: block.checkpoint."
        )
