"""``LLMBlockNeck``: linear mapper, block, linear mapper, norm, for any feature layout.

The paper's place for it is after an encoder's last block and before its final
norm (arXiv 2310.12973, section 3.1), so the host's backbone gives raw tokens
(``out_type='raw', final_norm=False``) and the neck applies the norm.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lm4ve.blocks.layer import Queries, take_tokens
from lm4ve.blocks.provenance import (
    NECK_KEY,
    SOURCE_KEY,
    ProvenanceMixin,
    compare_settings,
    declare_record,
    decode_source,
    encode_source,
    take_record,
)
from lm4ve.errors import CheckpointError, UserError, build_from, check
from lm4ve.necks.layouts import (
    DEFAULTS,
    check_layout,
    check_norm,
    mean_of_tokens,
    to_tokens,
)


def _group_norm(
    channels: int, num_groups: int, eps: float = 1e-5, affine: bool = True
) -> nn.GroupNorm:
    """Build a group norm with the channels first, as all other norms have them."""
    return nn.GroupNorm(num_groups, channels, eps, affine)


_NORMS: dict[str, Any] = {
    **dict.fromkeys(('LN', 'LN2d'), nn.LayerNorm),
    **dict.fromkeys(('BN', 'BN1d', 'BN2d', 'BN3d'), nn.BatchNorm1d),
    **dict(RMSNorm=nn.RMSNorm, SyncBN=nn.SyncBatchNorm),
    'GN': _group_norm,
}
_INIT = dict(type='TruncNormal', layer='Linear', std=0.02)
#: The record of a neck without variants.
_PLAIN: dict[str, Any] = dict(mapper='linear', mapper_lora='none', queries='none')
_PLAIN.update(gate='none', shuffle_tokens=False)


@MODELS.register_module()
class LLMBlockNeck(BaseModule):  # type: ignore[misc]
    """``x -> mapper_in: Linear(C, D) -> block -> mapper_out: Linear(D, C) -> norm``.

    Args:
        in_channels (int): C, the backbone's width.
        block (dict | nn.Module): Config of :class:`lm4ve.blocks.LLMBlock`,
            :class:`lm4ve.blocks.MLPBlock`, or any module with ``embed_dims``
            and their ``forward(x, padding_mask, queries)``.
        norm_cfg (dict, optional): The encoder's final norm, which comes after the block
            and acts on the channels in every layout: 'LN', 'LN2d' (the same here),
            'RMSNorm', 'GN', 'BN', 'BN1d', 'BN2d', 'BN3d' or 'SyncBN', and its
            arguments. None: no norm.
        norm_first (bool): Let 'avg_featmap' normalize each token, then average, as some
            hosts do.
        residual (str): 'none' as in the paper; 'inner' adds the block's input
            to its output (in D), 'outer' the neck's input to the second
            mapper's output (in C, before the norm), 'both' does both (the
            variants of arXiv 2403.17343).
        out_type (str): 'raw' returns all tokens in the layout of the input;
            'cls_token' returns ``[B, C]``, token 0, and computes only it;
            'avg_featmap' returns ``[B, C]``, the norm of the mean over tokens
            (VideoMAE's ``fc_norm``); 'query' returns the outputs of few ``queries``.
        low_rank (str): How the rank C of the block's input is used to save
            computation (see ``lm4ve/blocks/low_rank.py``): 'absorb', 'fold',
            'off', or 'auto', which counts the operations for each batch and
            picks the cheapest. All give the same result. Where something acts on the
            mapper, the norm or the projections (an adapter, a hook, a bias, a
            quantization), they are called as modules, as with 'off'.
        with_cp (bool): Recompute mappers and block in the backward pass, store no
            activations.
        compile (bool | dict): Run mappers and block through ``torch.compile``, with
            these options.
        layout (str, optional): What the dimensions of the features are, a letter for
            each: B samples, C channels, any others tokens. Default: 'BNC', 'BCHW' or
            'BCTHW' by their number. Other encoders return 'BCN', 'BHWC' or, within
            CLIP's transformers, 'NBC'.
        num_extra_tokens (int): How many class and register tokens come first, which
            'avg_featmap' leaves out of its mean (as MAE, BEiT and EVA-02 do).
        index (int): Which entry of a sequence of features the neck takes.
        keep_others (bool): Return a sequence of the same length with that entry
            replaced, for modules that read several maps (FPN, TPN, UPerHead).
        train_queries (float | dict, optional): The part of the tokens that a training
            step computes, drawn anew for each sample, where the host pools over all of
            them; evaluation computes all. A dict has the field ``fraction``: a number,
            or a pair for the first and the last step.
        branch (bool | dict, optional): Make the block a branch beside the identity in
            training and leave it out in evaluation. A dict has the fields of
            :class:`lm4ve.necks.train_only.TrainBranch`.
        guard (bool): Let ``lm4ve.BlockInUseHook`` end a training in whose first
            iteration the block does not run or gets no gradient. False for models that
            skip it in some steps.
        queries (dict, optional): The tokens that out_type='query' reads: see
            :class:`lm4ve.necks.variants.FewQueries`.
        mapper (dict, optional): Bias, depth and activations of the mappers: see
            :class:`lm4ve.necks.variants.Mappers`.
        lora (dict, optional): Freeze the mappers, and train LoRA on them: see
            :class:`lm4ve.blocks.adapters.LoRA`. MedVisionLlama has ``r=4, alpha=1``.
        gate (bool | str): Multiply the block's branch beside an 'inner' or 'outer'
            residual by a scalar that is zero at first (ReZero), with 'tanh' by its tanh
            (Flamingo).
        shuffle_tokens (bool): A control: the block reads a sample's tokens in random
            order.
        init_cfg (dict | list, optional): How the mappers, never the block, are
            initialized.

    Raises:
        UserError: An argument is not one of those above.
    """

    block: Any
    train_only: Any
    skip: Any  # the layer of an outer residual
    query: Any  # the tokens of out_type='query'
    gate: Any
    variants: dict[str, Any]  # what a checkpoint records of them
    _compiled: Callable[..., Tensor] | None

    def __init__(
        self,
        in_channels: int,
        block: dict[str, Any] | nn.Module,
        norm_cfg: dict[str, Any] | None = dict(type='LN', eps=1e-6),
        residual: str = 'none',
        out_type: str = 'raw',
        low_rank: str = 'auto',
        with_cp: bool = False,
        compile: bool | dict[str, Any] = False,
        layout: str | None = None,
        num_extra_tokens: int = 0,
        index: int = -1,
        keep_others: bool = False,
        train_queries: float | dict[str, Any] | None = None,
        branch: bool | dict[str, Any] | None = None,
        guard: bool = True,
        norm_first: bool = False,
        init_cfg: dict[str, Any] | Sequence[dict[str, Any]] | None = _INIT,
        queries: dict[str, Any] | None = None,
        mapper: dict[str, Any] | None = None,
        lora: dict[str, Any] | None = None,
        gate: bool | str = False,
        shuffle_tokens: bool = False,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        check('neck.residual', residual, choices=('none', 'inner', 'outer', 'both'))
        check(
            'neck.out_type',
            out_type,
            choices=('raw', 'cls_token', 'avg_featmap', 'query'),
        )
        check('neck.low_rank', low_rank, choices=('auto', 'absorb', 'fold', 'off'))
        if layout:
            check_layout(layout)
        check('neck.num_extra_tokens', num_extra_tokens, kind=int, least=0)
        self.in_channels, self.layout, self.index = in_channels, layout, index
        self.residual, self.out_type, self.low_rank = residual, out_type, low_rank
        self.num_extra_tokens, self.keep_others = num_extra_tokens, keep_others
        self.with_cp, self.guard, self.norm_first = with_cp, guard, norm_first
        self.compile_options = {} if compile is True else compile or None
        self._compiled, self._observed = None, False
        self.train_only = self.skip = self.query = self.gate = None
        self.shuffle_tokens, self.variants = shuffle_tokens, {}
        if branch or train_queries is not None:
            from lm4ve.necks.train_only import TrainOnly

            self.train_only = TrainOnly(train_queries, branch, out_type, residual)
        self.block = block if isinstance(block, nn.Module) else MODELS.build(block)
        #: Whether a training step depends on how far training has come.
        self.follows_progress = getattr(self.block, 'soft_mask', None) is not None or (
            self.train_only is not None and self.train_only.scheduled
        )
        if not getattr(self.block, 'may_absorb', True):
            forms = 'block.rotary=True, a soft mask, norms of keys, clipping or sinks'
            field = f'neck.low_rank with {forms}'
            check(field, low_rank, choices=('auto', 'fold', 'off'))
        self.mapper_in: Any = nn.Linear(in_channels, self.block.embed_dims, bias=False)
        self.mapper_out: Any = nn.Linear(self.block.embed_dims, in_channels, bias=False)
        self.norm = None if norm_cfg is None else _build_norm(norm_cfg, in_channels)
        if (
            gate
            or shuffle_tokens
            or out_type == 'query'
            or (queries, mapper, lora) != (None,) * 3
        ):
            from lm4ve.necks.variants import add_variants

            add_variants(self, gate, queries, mapper, lora)
        if isinstance(self.block, ProvenanceMixin):
            self.block.source.update(self.settings())
        else:  # a block without a record of its own
            record_settings(self)

    def forward(
        self,
        feats: Tensor | Sequence[Tensor],
        padding_mask: Tensor | None = None,
        queries: Queries = None,
    ) -> Tensor | tuple[Tensor, ...]:
        """Run the neck.

        Args:
            feats (Tensor | Sequence[Tensor]): Features, or a sequence of which
                :attr:`index` is used: tokens, an image map or a clip map, in
                :attr:`layout`.
            padding_mask (Tensor, optional): Bool ``[B, N]``, True = padding.
            queries (slice | Tensor, optional): The tokens to compute (see
                :class:`lm4ve.blocks.LLMBlock`); only for token features with
                ``out_type='raw'``.

        Returns:
            Tensor | tuple[Tensor]: A tuple if ``feats`` was a sequence, of one unless
            :attr:`keep_others`. 'raw' keeps the layout (or ``[B, Q, C]``), else ``[B,
            C]``.

        Raises:
            UserError: Another width, an unknown layout, or a norm that would count
                padding in.
        """
        x = self.pick(feats)
        tokens, restore = to_tokens(x, self.in_channels, self.layout)
        is_map = x.dim() > 3
        self._check_extra(tokens.shape[1])
        if self.training and self.guard and not torch.is_grad_enabled():
            self._expect_gradient()
        if padding_mask is not None:
            check_norm(self, queries)
        queries = self._queries(queries, is_map)
        read_mask = padding_mask
        if self.shuffle_tokens:
            from lm4ve.necks.variants import shuffle

            tokens, read_mask, queries = shuffle(self, tokens, padding_mask, queries)
        if self.query is not None:
            tokens, read_mask, queries = self.query(tokens, read_mask)
        if self.train_only is None:
            out = self.run(tokens, read_mask, queries)
        else:
            out, padding_mask = self.train_only(
                self, tokens, is_map, padding_mask, queries
            )
        if self.norm_first:
            out = self._normed(out)
        if self.out_type == 'avg_featmap':
            out = mean_of_tokens(out, padding_mask, self.num_extra_tokens)
        if not self.norm_first:
            out = self._normed(out)
        if self.out_type == 'cls_token':
            out = out[:, 0]
        elif self.query is not None:
            out = self.query.join(out)
        elif self.out_type == 'raw':
            out = restore(out)
        if isinstance(feats, Tensor):
            return out
        if not self.keep_others:
            return (out,)
        maps = list(feats)
        maps[self.index] = out
        return tuple(maps)

    def _check_extra(self, count: int) -> None:
        """Refuse more class and register tokens than there are tokens.

        Args:
            count (int): N, with them.

        Raises:
            UserError: There are fewer, or none is left to average.
        """
        if not self.num_extra_tokens:
            return
        averages = self.out_type == 'avg_featmap'
        if self.query is not None:
            averages = self.query.fields.mean or self.query.fields.max
        needed = self.num_extra_tokens + 1 if averages else self.num_extra_tokens
        if count < needed:
            raise UserError(
                f'neck.num_extra_tokens={self.num_extra_tokens}, but the encoder gives {count} '
                'tokens, class and register tokens among them. Fix: how many of those it has.'
            )

    def _expect_gradient(self) -> None:
        """Let the optimizer's first step raise if the mappers got no gradient."""
        if torch.compiler.is_compiling():
            return
        from lm4ve.necks.without_gradient import expect_gradient

        expect_gradient(self)

    def _normed(self, x: Tensor) -> Tensor:
        """Apply the norm to the channels of ``[B, Q, C]`` or ``[B, C]``."""
        if self.norm is None:
            return x
        last = x.dim() == 2 or isinstance(self.norm, (nn.LayerNorm, nn.RMSNorm))
        return self.norm(x) if last else self.norm(x.mT).mT  # type: ignore[no-any-return]

    def run(
        self, tokens: Tensor, padding_mask: Tensor | None, queries: Queries
    ) -> Tensor:
        """Run mappers and block ``[B, N, C] -> [B, Q, C]``, compiled or checkpointed if wanted."""
        if self._observed:
            return take_tokens(self._compute(tokens, padding_mask, None), queries)
        function: Callable[..., Tensor] = self._compute
        # An export traces what would be compiled.
        if self.compile_options is not None and not torch.compiler.is_exporting():
            self._compiled = self._compiled or torch.compile(
                function, **self.compile_options
            )
            function = self._compiled
        if self.with_cp and torch.is_grad_enabled():
            out: Tensor = checkpoint(
                function, tokens, padding_mask, queries, use_reentrant=False
            )
            return out
        return function(tokens, padding_mask, queries)

    def _compute(
        self, tokens: Tensor, padding_mask: Tensor | None, queries: Queries
    ) -> Tensor:
        """Mapper, block, mapper and residuals: ``[B, N, C] -> [B, Q, C]``."""
        choose = (
            None if self._observed else getattr(self.block, 'choose_low_rank', None)
        )
        method = (
            choose(self.mapper_in, tokens, queries, self.low_rank) if choose else 'off'
        )
        inner, outer = (self.residual in (side, 'both') for side in ('inner', 'outer'))
        out: Tensor
        if method == 'off':
            hidden = self.mapper_in(tokens)
            out = self.block(hidden, padding_mask=padding_mask, queries=queries)
            kept = take_tokens(hidden, queries) if inner else None
        else:  # the same, for less: see lm4ve/blocks/low_rank.py
            out = self.block.run(
                tokens, padding_mask, queries, self.mapper_in.weight, method
            )
            kept = self.mapper_in(take_tokens(tokens, queries)) if inner else None
        if kept is not None:
            out = kept + self._gated(out)
        out = self.mapper_out(out)
        if outer:
            kept = take_tokens(tokens, queries)
            kept = kept if self.skip is None else self.skip(kept)
            out = kept + self._gated(out)
        return out

    def _gated(self, branch: Tensor) -> Tensor:
        """Multiply a branch beside a residual by the gate, if there is one."""
        if self.gate is None:
            return branch
        gate: Tensor = (
            self.gate.tanh() if self.variants['gate'] == 'tanh' else self.gate
        )
        return branch * gate.to(branch.dtype)

    def __getstate__(self) -> dict[str, Any]:
        # A compiled method belongs to its module: copies (EMA) compile their own.
        return {**super().__getstate__(), '_compiled': None}

    @contextmanager
    def observe(self) -> Iterator['LLMBlockNeck']:
        """Compute every token, and run each part as a module, inside this context.

        So forward hooks see what would otherwise be folded, compiled or not computed.
        The result stays the same; it costs what ``low_rank='off'`` with all tokens
        costs.
        """
        before, self._observed = self._observed, True
        try:
            yield self
        finally:
            self._observed = before

    def pick(self, feats: Tensor | Sequence[Tensor]) -> Tensor:
        """Return the features that go through the neck.

        Raises:
            UserError: The sequence has no entry :attr:`index`.
        """
        if isinstance(feats, Tensor):
            return feats
        field = f'neck.index of {len(feats)} feature maps'
        check(field, self.index, least=-len(feats), most=len(feats) - 1)
        return feats[self.index]

    def _queries(self, queries: Queries, is_map: bool) -> Queries:
        """Return the tokens that the output is made of.

        Raises:
            UserError: The neck's fields leave no choice, or a map has no such tokens.
        """
        extra = (
            self.num_extra_tokens if self.out_type in ('avg_featmap', 'query') else 0
        )
        given, first = queries is not None, self.out_type == 'cls_token'
        if (given and self.out_type != 'raw') or (is_map and (given or first or extra)):
            raise UserError(
                f"neck.out_type='{self.out_type}', num_extra_tokens={extra} and queries={queries} "
                f'do not go with {"a map" if is_map else "tokens"}: queries need raw tokens.'
            )
        if first:
            return slice(0, 1)
        return slice(extra, None) if extra else queries

    def set_progress(self, progress: float) -> None:
        """Set how far training has come; ``lm4ve.NeckProgressHook`` does so before each step.

        Args:
            progress (float): In [0, 1].
        """
        for part in (self.train_only, getattr(self.block, 'soft_mask', None)):
            if part is not None:
                part.progress = progress

    def settings(self) -> dict[str, Any]:
        """Return the settings that a checkpoint records, beside the neck's tensors.

        A setting without effect is None, which equals any. A layout that is the default
        of its number of dimensions is 'by dimensions'.
        """
        named = self.layout is not None and self.layout not in DEFAULTS.values()
        averages = self.out_type == 'avg_featmap'
        reads_extra = averages or self.query is not None or self.shuffle_tokens
        branch = getattr(self.train_only, 'branch', None)
        norm, eps = type(self.norm).__name__, getattr(self.norm, 'eps', None)
        return dict(
            residual=self.residual,
            layout=self.layout if named else 'by dimensions',
            num_extra_tokens=self.num_extra_tokens if reads_extra else None,
            norm_first=self.norm_first if averages else None,
            index=self.index,
            keep_others=self.keep_others,
            branch='left out in evaluation' if branch else 'none',
            out_type=self.out_type,
            norm='none' if self.norm is None else f'{norm}(eps={eps})',
            heads=getattr(self.block, 'num_heads', None),  # of a control
            **{**_PLAIN, **self.variants},
        )

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *others: Any
    ) -> None:
        """Load, but refuse the neck of another kind of block, even where loading is not strict.

        Raises:
            CheckpointError: The state has this neck's weights, but a record of frozen
                weights where the config has no ``LLMBlock``, or none where it has one;
                or it was made with other :meth:`settings`.
        """
        record = take_record(self, state_dict, prefix, NECK_KEY)
        if record is not None:
            compare_settings(decode_source(record, prefix + NECK_KEY), self.settings())
        elif NECK_KEY in self._buffers:  # older checkpoints lack it
            state_dict[prefix + NECK_KEY] = self._buffers[NECK_KEY]
        key = f'{prefix}block.{SOURCE_KEY}'
        expected = isinstance(self.block, ProvenanceMixin)
        if self._is_whole(state_dict, prefix) and (key in state_dict) != expected:
            raise CheckpointError(
                f"The checkpoint {'lacks' if expected else 'has'} '{key}', the record of frozen "
                f'weights, but model.neck.block of the config is a {type(self.block).__name__}.'
            )
        super()._load_from_state_dict(state_dict, prefix, *others)

    def _is_whole(self, state_dict: dict[str, Any], prefix: str) -> bool:
        """Whether a state has the first mapper itself, and not only adapters on it."""
        mapper = [f'{prefix}mapper_in.{name}' for name in self.mapper_in.state_dict()]
        return bool(mapper) and all(name in state_dict for name in mapper)


def record_settings(neck: LLMBlockNeck) -> None:
    """Let a neck write its settings into its state itself, where no block's record has room."""
    if NECK_KEY not in neck._buffers:
        declare_record(neck, NECK_KEY)
        neck.register_state_dict_post_hook(_save_settings)


def _save_settings(
    neck: Any, state: dict[str, Any], prefix: str, metadata: Any
) -> None:
    state[prefix + NECK_KEY] = encode_source(neck.settings())


def _build_norm(cfg: dict[str, Any], channels: int) -> nn.Module:
    """Build a norm from its config, in mmcv's words."""
    options = dict(cfg)
    trainable = options.pop('requires_grad', True)
    kind = str(options.pop('type', None)).rpartition('.')[2]
    check('neck.norm_cfg.type', kind, choices=_NORMS)
    build = functools.partial(_NORMS[kind], channels)
    norm: nn.Module = build_from(build, options, 'neck.norm_cfg')
    return norm.requires_grad_(trainable)
