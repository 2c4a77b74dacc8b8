"""``LLMBlockNeck``: linear mapper, block, linear mapper, norm, for any feature layout.

The paper's place for it is after an encoder's last block and before its final
norm (arXiv 2310.12973, section 3.1), so the host's backbone gives raw tokens
(``out_type='raw', final_norm=False``) and the neck applies the norm.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lm4ve.blocks.layer import Queries, take_tokens
from lm4ve.blocks.provenance import (
    NECK_KEY,
    SOURCE_KEY,
    RecordsFrozenSource,
    compare_settings,
    decode_source,
    encode_source,
)
from lm4ve.errors import CheckpointError, UserError, check
from lm4ve.necks.branch import read_branch
from lm4ve.necks.guard import Use, expect_use
from lm4ve.necks.in_training import InTraining
from lm4ve.necks.layouts import DEFAULTS, check_layout, to_tokens
from lm4ve.necks.train_queries import mean_of_tokens, read_train_queries

RESIDUALS = ('none', 'inner', 'outer', 'both')
OUT_TYPES = ('raw', 'cls_token', 'avg_featmap')
LOW_RANKS = ('auto', 'absorb', 'fold', 'off')


@MODELS.register_module()
class LLMBlockNeck(InTraining):
    """``x -> mapper_in: Linear(C, D) -> block -> mapper_out: Linear(D, C) -> norm``.

    Args:
        in_channels (int): C, the backbone's width.
        block (dict | nn.Module): Config of :class:`lm4ve.blocks.LLMBlock`,
            :class:`lm4ve.blocks.MLPBlock`, or any module with ``embed_dims``
            and their ``forward(x, padding_mask, queries)``.
        norm_cfg (dict, optional): The encoder's final norm, which comes after
            the block. None: no norm.
        residual (str): 'none' as in the paper; 'inner' adds the block's input
            to its output (in D), 'outer' the neck's input to the second
            mapper's output (in C, before the norm), 'both' does both (the
            variants of arXiv 2403.17343).
        out_type (str): 'raw' gives all tokens in the layout they came in;
            'cls_token' gives ``[B, C]`` of token 0 and computes only it;
            'avg_featmap' gives ``[B, C]``, the mean over tokens, then the norm
            (as VideoMAE's ``fc_norm``).
        low_rank (str): How the rank C of the block's input is used to save
            computation (see ``lm4ve/blocks/low_rank.py``): 'absorb', 'fold',
            'off', or 'auto', which counts the operations for each batch and
            picks the cheapest. All give the same result. Only with 'off', or
            within :meth:`observe`, is the mapper a module whose forward hooks
            fire.
        with_cp (bool): Recompute mappers and block in the backward pass
            instead of storing their activations.
        compile (bool | dict): Run mappers and block through ``torch.compile``,
            with these options.
        layout (str, optional): What the dimensions of the features are, a letter for each:
            B samples, C channels, any others tokens. Default: 'BNC', 'BCHW' or 'BCTHW' by
            their number. Others that encoders give are 'BCN', 'BHWC' and, within CLIP's
            transformers, 'NBC'.
        num_extra_tokens (int): How many class and register tokens come first, which
            'avg_featmap' leaves out of its mean (as MAE, BEiT and EVA-02 do).
        index (int): Which entry of a sequence of features the neck takes.
        keep_others (bool): Give a sequence of the same length back, with that entry
            replaced, for what reads several maps (FPN, TPN, UPerHead).
        train_queries (float | dict, optional): The part of the tokens that a training step
            computes, drawn anew for each sample, where the host pools over all of them;
            evaluation computes all. A dict has the fields of
            :class:`lm4ve.necks.train_queries.TrainQueries`.
        branch (bool | dict, optional): Make the block a branch beside the identity in
            training and leave it out in evaluation. A dict has the fields of
            :class:`lm4ve.necks.branch.TrainBranch`.
        guard (bool): Raise in the first training step if the block did not run or if no
            gradient came back to it. False where a model rests it in some steps.
        init_cfg (dict | list, optional): How the mappers are initialized. It never
            touches the block.

    Raises:
        UserError: An argument is not one of those above.
    """

    block: Any

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
        init_cfg: dict[str, Any] | Sequence[dict[str, Any]] | None = dict(
            type='TruncNormal', layer='Linear', std=0.02
        ),
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        check('neck.residual', residual, choices=RESIDUALS)
        check('neck.out_type', out_type, choices=OUT_TYPES)
        check('neck.low_rank', low_rank, choices=LOW_RANKS)
        self.in_channels = in_channels
        self.layout = check_layout(layout)
        self.num_extra_tokens = num_extra_tokens
        self.index = index
        self.keep_others = keep_others
        self.residual = residual
        self.out_type = out_type
        self.low_rank = low_rank
        self.with_cp = with_cp
        self.train_queries = read_train_queries(train_queries, out_type)
        self.branch = read_branch(branch, residual)
        self._progress: float | None = None
        if self.branch is not None:
            # A tensor, so that a compiled neck is not compiled anew for each weight.
            self.register_buffer('branch_weight', torch.zeros(()), persistent=False)
        self.compile_options = {} if compile is True else compile or None
        self.block = block if isinstance(block, nn.Module) else MODELS.build(block)
        embed_dims: int = self.block.embed_dims
        if isinstance(self.block, RecordsFrozenSource):
            self.block.source.update(self.settings())
        if hasattr(self.block, 'check_low_rank'):
            self.block.check_low_rank(low_rank)
        self.mapper_in = nn.Linear(in_channels, embed_dims, bias=False)
        self.mapper_out = nn.Linear(embed_dims, in_channels, bias=False)
        self.norm = None if norm_cfg is None else _build_norm(norm_cfg, in_channels)
        self._observed = False
        self._compiled: Callable[..., Tensor] | None = None
        self.guard = guard
        self.use = Use()
        if guard:
            expect_use(self)

    @contextmanager
    def observe(self) -> Iterator['LLMBlockNeck']:
        """Compute every token, and run each part as a module, inside this context.

        So forward hooks see what would otherwise be folded, compiled or not computed. The
        result stays the same; it costs what ``low_rank='off'`` with all tokens costs.
        """
        before, self._observed = self._observed, True
        try:
            yield self
        finally:
            self._observed = before

    def forward(
        self,
        feats: Tensor | Sequence[Tensor],
        padding_mask: Tensor | None = None,
        queries: Queries = None,
    ) -> Tensor | tuple[Tensor, ...]:
        """Run the neck.

        Args:
            feats (Tensor | Sequence[Tensor]): Features, or a sequence of which
                :attr:`index` is used: tokens ``[B, N, C]``, an image map
                ``[B, C, H, W]`` or a clip map ``[B, C, T, H, W]``, or as
                :attr:`layout` says.
            padding_mask (Tensor, optional): Bool ``[B, N]``, True = padding.
            queries (slice | Tensor, optional): The tokens to compute (see
                :class:`lm4ve.blocks.LLMBlock`); only for token features with
                ``out_type='raw'``.

        Returns:
            Tensor | tuple[Tensor]: A tuple if ``feats`` was a sequence, of one entry
            unless :attr:`keep_others`. For
            'raw' in the layout of the input (``[B, Q, C]`` with queries), else
            ``[B, C]``.

        Raises:
            UserError: The features have another width or an unknown layout.
        """
        x = self.pick(feats)
        if self.norm is not None:
            self.use.look_at(x)
        given = to_tokens(x, self.in_channels, self.layout)
        drawn = self._draw(given.tokens, padding_mask, queries, given.is_map)
        queries = self._queries(x, queries, given.is_map)
        if self._observed:
            out = take_tokens(self._through_block(given.tokens, padding_mask, None), queries)
        elif self._rests():
            out = self._identity(given.tokens, queries)
        elif drawn is not None:
            out = self._run_drawn(given.tokens, padding_mask, queries, drawn)
        else:
            out = self._run(given.tokens, padding_mask, queries)
        if self.out_type == 'avg_featmap' and out.dim() == 3:
            extra = self.num_extra_tokens
            out = mean_of_tokens(out, None if padding_mask is None else padding_mask[:, extra:])
        if self.norm is not None:
            out = self.norm(out)
        if self.out_type == 'cls_token':
            out = out[:, 0]
        elif self.out_type == 'raw':
            out = given.restore(out)
        self.use.watch(out)
        return out if isinstance(feats, Tensor) else self._put_back(feats, out)

    def pick(self, feats: Tensor | Sequence[Tensor]) -> Tensor:
        """Return the features that go through the neck.

        Raises:
            UserError: There are fewer than :attr:`index` says.
        """
        if isinstance(feats, Tensor):
            return feats
        if not -len(feats) <= self.index < len(feats):
            raise UserError(
                f'neck.index={self.index}, but the backbone gives {len(feats)} feature maps. Fix: '
                'set neck.index, or backbone.out_indices.'
            )
        return feats[self.index]

    def _put_back(self, feats: Sequence[Tensor], out: Tensor) -> tuple[Tensor, ...]:
        if not self.keep_others:
            return (out,)
        kept = list(feats)
        kept[self.index] = out
        return tuple(kept)

    def settings(self) -> dict[str, Any]:
        """Return what a checkpoint records of the neck, beside its tensors.

        A setting without effect is None, which equals any. A layout that is the default of its
        number of dimensions is 'by dimensions'.
        """
        named = self.layout is not None and self.layout not in DEFAULTS.values()
        averages = self.out_type == 'avg_featmap'
        return dict(
            residual=self.residual,
            layout=self.layout if named else 'by dimensions',
            num_extra_tokens=self.num_extra_tokens if averages else None,
            index=self.index,
            keep_others=self.keep_others,
            branch='left out in evaluation' if self.branch else 'none',
        )

    def _queries(self, x: Tensor, queries: Queries, is_map: bool) -> Queries:
        """Return which tokens are to be computed.

        Raises:
            UserError: The neck's fields leave no choice, or there are no such tokens.
        """
        if queries is not None and (self.out_type != 'raw' or is_map):
            raise UserError(
                "queries go with tokens [B, N, C] and out_type='raw', got features "
                f"{list(x.shape)} and neck.out_type='{self.out_type}'."
            )
        if self.out_type == 'cls_token':
            if is_map:
                raise UserError(
                    f"neck.out_type='cls_token' needs tokens [B, N, C], got a map {list(x.shape)}. "
                    "Fix: out_type='raw' followed by a pooling neck, or 'avg_featmap'."
                )
            return slice(0, 1)
        if self.out_type == 'avg_featmap' and self.num_extra_tokens:
            if is_map:
                raise UserError(
                    f'neck.num_extra_tokens={self.num_extra_tokens} needs tokens [B, N, C], got a '
                    f'map {list(x.shape)}, which has no class token. Fix: num_extra_tokens=0.'
                )
            return slice(self.num_extra_tokens, None)
        return queries

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if not isinstance(self.block, RecordsFrozenSource):  # whose record has it
            destination[prefix + NECK_KEY] = encode_source(self.settings())

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        """Refuse the neck of another kind of block, even where loading is not strict.

        Raises:
            CheckpointError: The state has this neck's weights, but a record of frozen weights
                where the config has no ``LLMBlock``, or none where it has one; or it was made
                with other :meth:`settings`.
        """
        record = state_dict.pop(prefix + NECK_KEY, None)  # older checkpoints lack it
        if record is not None:
            theirs = decode_source(record, prefix + NECK_KEY)
            compare_settings(theirs, self.settings())
        key = f'{prefix}block.{SOURCE_KEY}'
        wanted = isinstance(self.block, RecordsFrozenSource)
        if f'{prefix}mapper_in.weight' in state_dict and (key in state_dict) != wanted:
            mine = type(self.block).__name__
            raise CheckpointError(
                f"The checkpoint {'lacks' if wanted else 'has'} '{key}', the record of frozen "
                f'weights, but model.neck.block of the config is a {mine}: it was made with '
                'another kind of block, or is damaged. Fix: give the config that the checkpoint '
                'was trained with.'
            )
        super()._load_from_state_dict(state_dict, prefix, *others)

    def _run(self, *args: Any) -> Tensor:
        """``_through_block``, compiled and checkpointed as the fields say."""
        function: Callable[..., Tensor] = self._through_block
        # An export traces what would be compiled.
        if self.compile_options is not None and not torch.compiler.is_exporting():
            self._compiled = self._compiled or torch.compile(function, **self.compile_options)
            function = self._compiled
        if self.with_cp and torch.is_grad_enabled():
            out: Tensor = checkpoint(function, *args, use_reentrant=False)
            return out
        return function(*args)

    def __getstate__(self) -> dict[str, Any]:
        # A compiled method belongs to the module it was made of: copies (EMA)
        # compile their own.
        return {**super().__getstate__(), '_compiled': None, 'use': Use(self.use.place)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if self.guard:
            expect_use(self)

    def _through_block(
        self, tokens: Tensor, padding_mask: Tensor | None, queries: Queries
    ) -> Tensor:
        """Mappers, block and residuals: ``[B, N, C] -> [B, Q, C]``."""
        out: Tensor
        weight = self.mapper_in.weight
        low_rank = 'off' if self._observed else self.low_rank
        if low_rank != 'off' and hasattr(self.block, 'forward_mapped'):
            out = self.block.forward_mapped(tokens, weight, padding_mask, queries, low_rank)
            if self.residual in ('inner', 'both'):
                out = out + F.linear(take_tokens(tokens, queries), weight)
        else:
            hidden = self.mapper_in(tokens)
            out = self.block(hidden, padding_mask=padding_mask, queries=queries)
            if self.residual in ('inner', 'both'):
                out = out + take_tokens(hidden, queries)
        out = self.mapper_out(out)
        if self.branch is not None:
            return self._beside(tokens, out, queries)
        if self.residual in ('outer', 'both'):
            out = out + take_tokens(tokens, queries)
        return out


def _build_norm(cfg: dict[str, Any], channels: int) -> nn.Module:
    """Build a norm layer from its config, layer norms without mmcv."""
    if cfg.get('type') == 'LN':
        options = {k: v for k, v in cfg.items() if k != 'type'}
        trainable = options.pop('requires_grad', True)
        return nn.LayerNorm(channels, **options).requires_grad_(trainable)
    from mmcv.cnn import build_norm_layer

    norm: nn.Module = build_norm_layer(cfg, channels)[1]
    return norm
