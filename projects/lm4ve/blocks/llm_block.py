"""``LLMBlock``: layers of a language model as one module ``[B, N, D] -> [B, N, D]``.

Frozen, bidirectional and without rotary by default, as in the paper (arXiv 2310.12973,
section 3). A block builds its parts, and runs them in a loop:

    language_model.py   transformers' layers with their weights
    layer.py            one of them as a layer of a visual encoder
    host_layer.py       the library's own layer as one, for families without a spec
    host_family.py      where their layers are, and whether they serve
    host_run.py         what their model does around its layers
    masks.py            which tokens a layer attends to
    rotary.py           the tables of its rotary embedding
    freezing.py         what trains
    low_rank/           the first layer together with the mapper before it, for less
    record.py           what a checkpoint says of all this, compared when one is loaded
"""

from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from mmengine.logging import print_log
from mmengine.registry import MODELS
from torch import Tensor, nn

from lm4ve.blocks.auto_dtype import AUTO, resolve_dtype
from lm4ve.blocks.config_fields import record_fields
from lm4ve.blocks.freezing import TRAINABLE, freeze_final_norm, freeze_layer
from lm4ve.blocks.frozen import Frozen, count_parameters, frozen_tensors
from lm4ve.blocks.heads import GROUPED, TILED, resolve_heads
from lm4ve.blocks.host_family import check_host_block
from lm4ve.blocks.host_layer import HostRotary
from lm4ve.blocks.language_model import LanguageModel
from lm4ve.blocks.layer import LLMLayer
from lm4ve.blocks.low_rank import (
    Factors,
    can_absorb,
    can_fold,
    choose_method,
    factorize,
    fit_range,
    is_plain,
    run_layer,
    turn,
)
from lm4ve.blocks.masks import AttentionMasks, Window, mask_of_padding
from lm4ve.blocks.record import BlockRecord, RecordsFrozenWeights
from lm4ve.blocks.removed import refuses_removed
from lm4ve.blocks.rotary import RotaryTables
from lm4ve.blocks.seeding import seeded_cpu_generator
from lm4ve.blocks.tokens import Queries, check_inputs, refuse_empty_samples
from lm4ve.errors import UserError, check, require
from lm4ve.llm.fingerprint import Fingerprint
from lm4ve.llm.sources import FileSource

#: The field ``dtype`` -> the type.
_DTYPES = {
    'float32': torch.float32,
    'bfloat16': torch.bfloat16,
    'float16': torch.float16,
}
#: The field ``pretrained`` -> the log's word.
_ORIGINS = {
    True: 'pre-trained',
    False: 'random',
    'permuted': 'permuted',
    'scaled': 'random at the pre-trained scale',
}
#: Parts of a layer that LoRA adapts by default.
_LORA_TARGETS = ('q_proj', 'v_proj')


@MODELS.register_module()
class LLMBlock(RecordsFrozenWeights):
    """Layers of a language model as a visual encoder layer.

    Args:
        checkpoint (str | FileSource, optional): A local folder or file in Hugging Face,
            Meta or GGUF format, ``package:<name>``, or a hub id ``org/name[@rev]``; or
            a :class:`lm4ve.llm.sources.FileSource`. None needs ``arch``.
        layers (Sequence[int]): Which layers, in this order; negative counts
            from the end. Defaults to the last one.
        pretrained (bool | str): False gives the same shape with the family's random
            initialization: the control. 'permuted' keeps the weights, each matrix's in
            a random order: the same statistics without structure. 'scaled' draws random
            weights with the standard deviation of each projection
            (:mod:`lm4ve.blocks.scaled`). Defaults to True.
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
        rotary (bool | str): Keep its rotary position embedding. 'llm4seg' turns all
            channels by one radian a token, with cosine and sine swapped, as the code of
            LLM4Seg has it.
        final_norm (bool): Apply the model's final norm with unit gain after
            the last layer, as the released code does. It does nothing for families
            that have no such norm (bert, roberta, opt-350m).
        dtype (str): Storage and compute type: 'float32', 'bfloat16' or 'float16'.
            'auto' is bfloat16 where the device computes it, else float32
            (:func:`lm4ve.blocks.auto_dtype.resolve_dtype`); a checkpoint of another
            type causes a warning. Autocast is off inside the block.
        arch (dict, optional): ``model_type`` and config fields, to build a
            random block without a checkpoint.
        kv_heads (str): Which head of keys and values a query head reads where several
            share one: 'grouped', the language model's own, or 'tiled', as the code of
            MedVisionLlama does (:mod:`lm4ve.blocks.heads`).
        heads (Sequence, optional): The query heads to keep, from 0: the outputs of all
            others count as zero (:mod:`lm4ve.blocks.heads`). ``[2, 28]`` keeps these
            two of every layer, ``[[28], None]`` one of the first layer and all of the
            second. None keeps all. The output projection must not train then.

    Attributes:
        embed_dims (int): D, the language model's width.
        source (dict): The record of the frozen weights, :class:`BlockRecord` as plain
            data.
        soft_mask (SoftMask | None): The mask whose progress a neck sets.

    Raises:
        UserError: An argument is out of range; subclasses of it for
            checkpoints and unsupported models.
    """

    layers: Any  # nn.ModuleList of LLMLayer, or of HostLayer (families without a spec)

    @refuses_removed('block')
    def __init__(
        self,
        checkpoint: str | FileSource | None = None,
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
        kv_heads: str = GROUPED,
        heads: Sequence[int] | Sequence[Sequence[int] | None] | None = None,
    ) -> None:
        super().__init__()
        _check_training(trainable, dtype, lora)
        _check_pretrained(pretrained, checkpoint)
        check('block.kv_heads', kv_heads, choices=(GROUPED, TILED))
        self.checkpoint = checkpoint
        self.arch = arch
        self.pretrained = pretrained
        if checkpoint is None:
            self.pretrained = False
        self.seed = seed
        self.trainable = trainable
        dtype = resolve_dtype(dtype, TRAINABLE[trainable].dtypes)
        self.dtype = _DTYPES[dtype]
        self.causal_suffix = causal_suffix
        self.kv_heads = kv_heads
        self.masks = AttentionMasks(causal, causal_suffix)
        self.soft_mask = self.masks.soft

        model = LanguageModel(checkpoint, arch)
        self.embed_dims: int = model.config.hidden_size
        self.layer_indices = model.resolve_layers(layers)
        if model.host is not None:
            check_host_block(trainable, self.soft_mask is not None)
            require(
                kv_heads == GROUPED,
                f"block.kv_heads='{kv_heads}' is not for {model.config.model_type}, whose layers "
                f"run as the library has them. Fix: block.kv_heads='{GROUPED}'.",
            )
            require(
                heads is None,
                f'block.heads={heads!r} is not for {model.config.model_type}, whose layers run as '
                'the library has them. Fix: leave block.heads out.',
            )
            if window:
                model.host.check_windows(self.layer_indices, bool(causal))
        self.kept_heads = None
        if heads is not None:
            count = model.config.num_attention_heads
            self.kept_heads = resolve_heads(heads, count, len(self.layer_indices))
            _check_heads_stay(self.kept_heads, trainable)
        self.windows: list[Window | None] = [None] * len(self.layer_indices)
        if window:
            self.windows = [self._find_window(model, i) for i in self.layer_indices]
        self.rotary_tables: RotaryTables | HostRotary | None = None
        if rotary:
            self.rotary_tables = self._build_rotary(model, rotary)
        self.layers, fingerprint = self._build_layers(model)
        #: What a checkpoint records of the adapters.
        self.lora: dict[str, Any] | None = None
        self.lora_fields = lora or {}
        if TRAINABLE[trainable].has_adapters:
            self.lora = self._add_lora(self.layers)
            _check_no_adapter_of_heads(self.kept_heads, self.lora['targets'])
        self.final_norm: nn.Module | None = None
        if final_norm:
            self.final_norm = self._build_final_norm(model)

        record = self._describe(model, fingerprint, dtype, window, rotary)
        self.source = record.to_dict()
        self._log(dtype)

    # ------------------------------------------------------------- building
    def _find_window(self, model: LanguageModel, index: int) -> Window | None:
        """Return the window of a layer; None without one, and where it does not apply.

        The window of a causal model applies only to a causal block. That of a model
        which is bidirectional itself always does.
        """
        window = model.window(index)
        if window is None:
            return None
        if self.masks.causal or window.both_ways:
            return window
        return None

    def _build_rotary(
        self, model: LanguageModel, rotary: bool | str
    ) -> RotaryTables | HostRotary:
        """Build what computes the rotary tables of the layers.

        It is the library's own where the library's own layers run.
        """
        if model.host is None:
            return RotaryTables(model, rotary)
        return model.host.rotary_tables(rotary, self.layer_indices)

    def _build_layers(self, model: LanguageModel) -> tuple[nn.ModuleList, str]:
        """Build the layers, and freeze what does not train.

        Random weights and random orders of weights are drawn with the block's seed.

        Returns:
            tuple[nn.ModuleList, str]: The layers, and the fingerprint of their weights,
            which are those of all heads.
        """
        layers = nn.ModuleList()
        with seeded_cpu_generator(self.seed), Fingerprint() as fingerprint:
            for index in self.layer_indices:
                layers.append(self._build_layer(model, index, fingerprint))
        # Some weights come without gradients. Freezing switches those off that do not
        # train.
        layers.requires_grad_(True)
        for layer in layers:
            freeze_layer(layer, self.trainable)
        # The digest is complete since the context above has ended.
        return layers, fingerprint.digest

    def _build_layer(
        self, model: LanguageModel, index: int, fingerprint: Fingerprint
    ) -> nn.Module:
        """Build one layer with its weights, and add these to the fingerprint.

        Args:
            model (LanguageModel): The language model.
            index (int): Which of its layers.
            fingerprint (Fingerprint): It gets every weight of the layer.

        Returns:
            nn.Module: An :class:`LLMLayer`, or a
            :class:`lm4ve.blocks.host_layer.HostLayer` for families without a spec.
        """
        library_layer = model.build_layer(
            index, self.dtype, self.pretrained, fingerprint.add
        )
        if model.host is not None:
            return model.host.build_layer(library_layer, index, self.trainable)
        heads = None
        if self.kept_heads is not None:
            heads = self.kept_heads[self.layer_indices.index(index)]
        return LLMLayer(library_layer, model.spec, model.config, self.kv_heads, heads)

    def _add_lora(self, layers: nn.Module) -> dict[str, Any]:
        """Add LoRA to the layers, in place; return what a checkpoint records of it."""
        from lm4ve.blocks.adapters import add_lora  # needs peft

        return add_lora(
            layers, self.lora_fields, 'block.lora', _LORA_TARGETS, self.seed
        )

    def _build_final_norm(self, model: LanguageModel) -> nn.Module | None:
        """Build the norm after the last layer, frozen unless it trains.

        None where the family has no such norm.
        """
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
        """Return what a checkpoint records of the block.

        A field without an effect on these layers is recorded as None or False, so that
        a checkpoint of a block which differs in that field alone can be loaded.

        Args:
            model (LanguageModel): The language model.
            fingerprint (str): The fingerprint of its layers' weights.
            dtype, window, rotary: The block's arguments.
        """
        recorded_seed = None
        if self.pretrained is not True:
            recorded_seed = self.seed
        recorded_window = None
        if any(self._find_window(model, i) for i in self.layer_indices):
            recorded_window = window
        recorded_rotary: bool | str = False
        if rotary and any(layer.uses_rotary for layer in self.layers):
            recorded_rotary = rotary
        uses_rotary = recorded_rotary is not False
        recorded_kv_heads = GROUPED
        if any(layer.shares_kv_heads for layer in self.layers):
            recorded_kv_heads = self.kv_heads
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
            kv_heads=recorded_kv_heads,
            heads=self.kept_heads,
            config=record_fields(model.config, self.layer_indices, uses_rotary),
            **self.masks.record(),
        )

    def _log(self, dtype: str) -> None:
        """Log which layers the block has, and how many parameters are frozen."""
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
        """Load the weights that the parts had when the block was built.

        The layers are built once more, from the same source and with the same seed.
        """
        model = LanguageModel(self.checkpoint, self.arch)
        layers, _ = self._build_layers(model)
        self.layers.load_state_dict(layers.state_dict())
        if self.final_norm is None:
            return
        norm = self._build_final_norm(model)
        if norm is not None:
            self.final_norm.load_state_dict(norm.state_dict())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move or cast the block; torch calls it for ``.to()``, ``.half()`` and the like."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        # The whole model may have been cast: compute in the type of its weights.
        weights = [*frozen_tensors(self).values(), *self.parameters()]
        self.dtype = weights[0].dtype
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
            UserError: A shape is wrong, or a sample is all padding; see
                :func:`lm4ve.blocks.tokens.refuse_samples`.
        """
        if x.dim() != 3 or x.shape[-1] != self.embed_dims:
            raise UserError(
                f'LLMBlock takes [B, N, {self.embed_dims}], got {list(x.shape)}.'
            )
        check_inputs(x, padding_mask, queries)
        x = refuse_empty_samples(x, padding_mask)
        self._move_frozen_weights(x.device)
        not_padding = mask_of_padding(padding_mask)
        with torch.autocast(x.device.type, enabled=False):
            out = self._run_layers(
                x.to(self._compute_dtype()),
                first=0,
                not_padding=not_padding,
                queries=queries,
            )
        return out.to(x.dtype)

    def factorize(self, x: Tensor, weight: Tensor) -> tuple[Tensor, Factors]:
        """Write a linear mapper and the first layer's projections as factors.

        Args:
            x (Tensor): Tokens before the mapper, ``[B, N, C]``.
            weight (Tensor): The mapper's weight, ``[D, C]``.

        Returns:
            tuple[Tensor, Factors]: The tokens ``[B, N, C]`` in other channels, at least
            in fp32, and the factors for them; both for :meth:`run_low_rank`.
        """
        self._move_frozen_weights(x.device)
        dtype = self._compute_dtype()
        wide = torch.promote_types(dtype, torch.float32)
        with torch.autocast(x.device.type, enabled=False):
            tokens, turned = turn(x.to(wide), weight.to(wide))
            if dtype == torch.float16:
                tokens, turned = fit_range(tokens, turned)
            return tokens, factorize(self.layers[0], turned, dtype)

    def run_low_rank(
        self,
        x: Tensor,
        padding_mask: Tensor | None,
        queries: Queries,
        factors: Factors,
        method: str,
    ) -> Tensor:
        """Run a linear mapper and the block after it, with fewer operations.

        The result is that of ``block(mapper(x))``. The mapper's outputs have rank C, so
        the first layer computes its keys and values from the C channels before the
        mapper: 'fold' multiplies the weights of mapper and projections beforehand, and
        'absorb' applies the weights to the queries instead of to all keys and values
        (``lm4ve/blocks/low_rank``). The layers after the first run as in
        :meth:`forward`.

        Args:
            x (Tensor): Tokens before the mapper, ``[B, N, C]``, at least in fp32, in
                the channels of the factors.
            padding_mask, queries: See :meth:`forward`.
            factors (Factors): From :meth:`factorize`, or what ``lm4ve.fuse`` stores.
            method (str): 'fold' or 'absorb', from :meth:`choose_low_rank`.

        Returns:
            Tensor: ``[B, Q, D]``, in ``x.dtype``.

        Raises:
            UserError: See :meth:`forward`.
        """
        check_inputs(x, padding_mask, queries)
        x = refuse_empty_samples(x, padding_mask)
        self._move_frozen_weights(x.device)
        not_padding = mask_of_padding(padding_mask)
        with torch.autocast(x.device.type, enabled=False):
            mask, layer_queries, rotary = self._layer_inputs(0, x, not_padding, queries)
            hidden = run_layer(
                self.layers[0],
                x,
                mask=mask,
                queries=layer_queries,
                rotary=rotary,
                factors=factors,
                method=method,
            )
            out = self._run_layers(
                hidden, first=1, not_padding=not_padding, queries=queries
            )
        return out.to(x.dtype)

    def _compute_dtype(self) -> torch.dtype:
        """Return the type that the layers compute in: that of their weights.

        FSDP's mixed precision casts weights that train for the time of a step, behind
        the back of :meth:`_apply`. Frozen weights are out of its reach.
        """
        if self.trainable != 'all':
            return self.dtype
        for module in self.layers.modules():
            # Not among the parameters, of which FSDP takes it for that time.
            weight = getattr(module, 'weight', None)
            if isinstance(weight, Tensor):
                return weight.dtype
        return self.dtype

    def _run_layers(
        self, hidden: Tensor, first: int, not_padding: Tensor | None, queries: Queries
    ) -> Tensor:
        """Run the layers from number ``first`` on, then the final norm.

        Args:
            hidden (Tensor): The input of layer ``first``, ``[B, N, D]``. ``[B, Q, D]``
                if no layer is left, so that only the norm acts.
            first (int): The place in the block of the first layer that runs.
            not_padding (Tensor, optional): See :func:`mask_of_padding`.
            queries: The tokens that the block computes.

        Returns:
            Tensor: ``[B, Q, D]``.
        """
        for i in range(first, len(self.layers)):
            mask, layer_queries, rotary = self._layer_inputs(
                i, hidden, not_padding, queries
            )
            hidden = self.layers[i](hidden, mask, layer_queries, rotary)
        if self.final_norm is not None:
            hidden = self.final_norm(hidden)
        return hidden

    def _layer_inputs(
        self, i: int, x: Tensor, not_padding: Tensor | None, queries: Queries
    ) -> tuple[Tensor | None, Queries, Any]:
        """Return the arguments of a layer beside its input tokens.

        Args:
            i (int): The layer's place in the block.
            x (Tensor): All tokens, ``[B, N, ...]``, for their number and device.
            not_padding (Tensor, optional): See :func:`mask_of_padding`.
            queries: The tokens that the block computes.

        Returns:
            tuple: The attention mask, the queries that the layer computes, and its
            rotary tables in the form that its class takes; each may be None.
        """
        # Every layer before the last computes all tokens, which the next one reads.
        layer_queries = None
        if i == len(self.layers) - 1:
            layer_queries = queries
        mask_queries = layer_queries
        if self.layers[i].computes_all_tokens:
            mask_queries = None  # a row of the mask for every token
        mask = self.masks(x, not_padding, mask_queries, self.windows[i], self.training)
        rotary = None
        if self.rotary_tables is not None:
            index = self.layer_indices[i]
            rotary = self.rotary_tables(index, x.shape[1], x.device)
        return mask, layer_queries, rotary

    def _move_frozen_weights(self, device: torch.device) -> None:
        """Move frozen weights to the device of the tokens.

        ``.to()`` moves them too, but FSDP and DataParallel move only parameters.
        """
        for module in self.modules():
            if isinstance(module, Frozen):
                module.follow(device)

    # ------------------------------------------------------------- low rank
    @property
    def supports_low_rank(self) -> bool:
        """True if 'fold' can compute the first layer, for which it needs a layer spec.

        A family without a spec has the library's own layer, which runs as a whole.
        """
        return not self.layers[0].computes_all_tokens

    @property
    def may_absorb(self) -> bool:
        """True if 'absorb' computes the same as the first layer's attention.

        It then saves keys and values. Rotary embedding and a soft mask rule it out, see
        ``low_rank/choice.py``.
        """
        layer = self.layers[0]
        has_rotary = self.rotary_tables is not None and layer.uses_rotary
        has_soft_mask = self.soft_mask is not None
        return can_absorb(layer, has_rotary, has_soft_mask)

    def can_fold(self, mapper: nn.Module) -> bool:
        """Return whether mapper, norm and projections compute what their classes define.

        Only then do their weights determine the result: no hook, adapter or bias of the
        mapper.
        """
        # A subclass may compute something else.
        return is_plain(self, LLMBlock) and can_fold(self.layers[0], mapper)

    def choose_low_rank(
        self, mapper: nn.Module, x: Tensor, queries: Queries, low_rank: str
    ) -> str:
        """Choose how the rank C of the block's input is used for a batch.

        Args:
            mapper (nn.Module): The mapper before the block. Unless :meth:`can_fold`,
                the answer is 'off'.
            x (Tensor): Tokens before the mapper, ``[B, N, C]``.
            queries: See :meth:`forward`.
            low_rank (str): The neck's field: 'off', 'fold' or 'absorb' for that method,
                'auto' for the one that pays.

        Returns:
            str: 'fold' or 'absorb', for :meth:`run_low_rank`; or 'off': mapper and block have to
            be called as modules.
        """
        if low_rank == 'off' or not self.can_fold(mapper):
            return 'off'
        if low_rank == 'absorb' and not self.may_absorb:
            return 'off'
        if low_rank != 'auto':
            return low_rank
        is_low_rank = x.shape[-1] < self.embed_dims
        if not is_low_rank:
            return 'off'
        # A layer before the last computes all tokens.
        first_layer_queries = None
        if len(self.layers) == 1:
            first_layer_queries = queries
        return choose_method(self.layers[0], x, first_layer_queries, self.may_absorb)


def _check_training(trainable: str, dtype: str, lora: Any) -> None:
    """Check the fields that say what trains.

    Raises:
        UserError: One of them has no such value, or they do not go together.
    """
    check('block.trainable', trainable, choices=TRAINABLE)
    field = f"block.dtype with block.trainable='{trainable}'"
    check(field, dtype, choices=(*TRAINABLE[trainable].dtypes, AUTO))
    if lora is not None:
        require(
            TRAINABLE[trainable].has_adapters,
            f"block.trainable='{trainable}' with block.lora would train no adapter. "
            "Fix: block.trainable='lora', or leave block.lora out.",
        )


def _check_pretrained(
    pretrained: bool | str, checkpoint: str | FileSource | None
) -> None:
    """Check where the weights come from.

    Raises:
        UserError: There is no such origin, or no weights to permute or to measure.
    """
    check('block.pretrained', pretrained, choices=_ORIGINS)
    if isinstance(pretrained, str) and checkpoint is None:
        raise UserError(
            f"block.pretrained='{pretrained}' needs weights. Fix: block.checkpoint."
        )


def _check_heads_stay(kept_heads: list[list[int]] | None, trainable: str) -> None:
    """Check that no training brings back the heads that a block does not keep.

    Args:
        kept_heads (list[list[int]], optional): The heads that each layer keeps; None:
            all.
        trainable (str): The block's field.

    Raises:
        UserError: The output projections train.
    """
    if kept_heads is None or TRAINABLE[trainable].freezes('o_proj'):
        return
    raise UserError(
        f"block.heads with block.trainable='{trainable}': the output projection trains, "
        "which would bring the other heads back. Fix: block.trainable='none', 'norms' "
        "or 'lora', or leave block.heads out."
    )


def _check_no_adapter_of_heads(
    kept_heads: list[list[int]] | None, targets: Sequence[str]
) -> None:
    """Check that no adapter reads the heads that a block does not keep.

    Args:
        kept_heads (list[list[int]], optional): See :func:`_check_heads_stay`.
        targets (Sequence[str]): The names of the linear layers with an adapter, each
            after the number of its layer in the block.

    Raises:
        UserError: One is on an output projection.
    """
    if kept_heads is None:
        return
    names = [target.partition('.')[2] for target in targets]
    require(
        'o_proj' not in names,
        'block.lora.targets has o_proj with block.heads: an adapter of the output '
        'projection would bring the other heads back. Fix: targets without it, such as '
        f'{list(_LORA_TARGETS)}, or leave block.heads out.',
    )
