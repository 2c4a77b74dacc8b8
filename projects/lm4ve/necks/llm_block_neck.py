"""``LLMBlockNeck``: linear mapper, block, linear mapper, norm, for any feature layout.

The paper's place for it is after an encoder's last block and before its final
norm (arXiv 2310.12973, section 3.1), so the host's backbone gives raw tokens
(``out_type='raw', final_norm=False``) and the neck applies the norm.
"""

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
    decode_source,
    encode_source,
)
from lm4ve.errors import CheckpointError, UserError, check
from lm4ve.necks.layouts import DEFAULTS, check_layout, to_tokens
from lm4ve.necks.train_only import mean_of_tokens, parse_branch, parse_train_queries

RESIDUALS = ('none', 'inner', 'outer', 'both')
OUT_TYPES = ('raw', 'cls_token', 'avg_featmap')
LOW_RANKS = ('auto', 'absorb', 'fold', 'off')


@MODELS.register_module()
class LLMBlockNeck(BaseModule):  # type: ignore[misc]
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
            picks the cheapest. All give the same result. Where something acts on the
            mapper, the norm or the projections (an adapter, a hook, a bias, a quantization),
            they are called as modules, as with 'off'.
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
            :class:`lm4ve.necks.train_only.TrainQueries`.
        branch (bool | dict, optional): Make the block a branch beside the identity in
            training and leave it out in evaluation. A dict has the fields of
            :class:`lm4ve.necks.train_only.TrainBranch`.
        guard (bool): Let ``lm4ve.BlockInUseHook`` end a training in whose first iteration the
            block does not run or gets no gradient. False where a model rests it in some steps.
        init_cfg (dict | list, optional): How the mappers are initialized. It never
            touches the block.

    Raises:
        UserError: An argument is not one of those above.
    """

    block: Any
    mapper_in: Any
    branch_weight: Tensor

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
        self.guard = guard
        self.train_queries = parse_train_queries(train_queries, out_type)
        self.branch = parse_branch(branch, residual)
        if self.branch is not None:
            # A tensor, so that a compiled neck is not compiled anew for each weight.
            self.register_buffer('branch_weight', torch.zeros(()), persistent=False)
        self._progress: float | None = None
        self._observed = False
        self.compile_options = {} if compile is True else compile or None
        self._compiled: Callable[..., Tensor] | None = None
        self.block = block if isinstance(block, nn.Module) else MODELS.build(block)
        if isinstance(self.block, ProvenanceMixin):
            self.block.source.update(self.settings())
        if hasattr(self.block, 'check_low_rank'):
            self.block.check_low_rank(low_rank)
        self.mapper_in = nn.Linear(in_channels, self.block.embed_dims, bias=False)
        self.mapper_out = nn.Linear(self.block.embed_dims, in_channels, bias=False)
        self.norm = None if norm_cfg is None else _build_norm(norm_cfg, in_channels)

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
        x = to_tokens(self.pick(feats), self.in_channels, self.layout)
        drawn = self._draw(x.tokens, padding_mask, queries, x.is_map)
        queries = self._queries(queries, x.is_map)
        if self._observed:
            out = take_tokens(self._through_block(x.tokens, padding_mask, None), queries)
        elif self._rests():
            drawn, out = None, self._identity(x.tokens, queries)
        else:
            out = self._run(x.tokens, padding_mask, queries if drawn is None else drawn)
        if self.out_type == 'avg_featmap':
            if padding_mask is not None:  # drawn tokens are never padding
                padding_mask = padding_mask[:, self.num_extra_tokens :] if drawn is None else None
            out = mean_of_tokens(out, padding_mask)
        if self.norm is not None:
            out = self.norm(out)
        if self.out_type == 'cls_token':
            out = out[:, 0]
        elif self.out_type == 'raw':
            out = x.restore(out)
        return out if isinstance(feats, Tensor) else self._put_back(feats, out)

    def _through_block(
        self, tokens: Tensor, padding_mask: Tensor | None, queries: Queries
    ) -> Tensor:
        """Mapper, block, mapper and residuals: ``[B, N, C] -> [B, Q, C]``."""
        inner = self.residual in ('inner', 'both')
        method = self._choose_low_rank(tokens, queries)
        out: Tensor
        if method == 'off':
            hidden = self.mapper_in(tokens)
            out = self.block(hidden, padding_mask=padding_mask, queries=queries)
            if inner:
                out = out + take_tokens(hidden, queries)
        else:  # the same, for less: see lm4ve/blocks/low_rank.py
            out = self.block.forward_mapped(
                tokens, self.mapper_in, padding_mask, queries, method, inner
            )
        out = self.mapper_out(out)
        if self.branch is not None:
            # Where an observer looks at an evaluation, the block runs and has no part in it.
            return take_tokens(tokens, queries) + out * (self.branch_weight if self.training else 0)
        if self.residual in ('outer', 'both'):
            out = out + take_tokens(tokens, queries)
        return out

    def _choose_low_rank(self, tokens: Tensor, queries: Queries) -> str:
        if self.mapper_in is None:  # lm4ve.fuse has folded it into the block
            return 'fused'
        if self._observed or self.low_rank == 'off' or not hasattr(self.block, 'choose_low_rank'):
            return 'off'
        method: str = self.block.choose_low_rank(tokens, queries, self.low_rank, self.mapper_in)
        return method

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
        return {**super().__getstate__(), '_compiled': None}

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

    # --------------------------------------------------------- features in and out
    def pick(self, feats: Tensor | Sequence[Tensor]) -> Tensor:
        """Return the features that go through the neck.

        Raises:
            UserError: There are fewer than :attr:`index` says.
        """
        if isinstance(feats, Tensor):
            return feats
        field = f'neck.index of {len(feats)} feature maps'
        check(field, self.index, least=-len(feats), most=len(feats) - 1)
        return feats[self.index]

    def _put_back(self, feats: Sequence[Tensor], out: Tensor) -> tuple[Tensor, ...]:
        if not self.keep_others:
            return (out,)
        kept = list(feats)
        kept[self.index] = out
        return tuple(kept)

    def _queries(self, queries: Queries, is_map: bool) -> Queries:
        """Return which tokens the output is made of.

        Raises:
            UserError: The neck's fields leave no choice, or there are no such tokens.
        """
        if queries is not None and (self.out_type != 'raw' or is_map):
            raise UserError(
                "queries go with tokens [B, N, C] and out_type='raw', not with a map or "
                f"neck.out_type='{self.out_type}'."
            )
        extra = self.num_extra_tokens if self.out_type == 'avg_featmap' else 0
        if is_map and (self.out_type == 'cls_token' or extra):
            raise UserError(
                f"neck.out_type='{self.out_type}' with neck.num_extra_tokens={extra} needs tokens "
                '[B, N, C], got a map, which has no class token.'
            )
        if self.out_type == 'cls_token':
            return slice(0, 1)
        return slice(extra, None) if extra else queries

    # ------------------------------------------------------------ in training only
    @property
    def follows_progress(self) -> bool:
        """Whether a training step depends on how far training has come."""
        scheduled = self.train_queries is not None and self.train_queries.scheduled
        return scheduled or self.branch is not None

    def set_progress(self, progress: float) -> None:
        """Set how far training has come; ``lm4ve.NeckProgressHook`` does so before each step.

        Args:
            progress (float): In [0, 1].
        """
        self._progress = progress
        if self.branch is not None:
            self.branch_weight.fill_(self.branch.at(progress))

    def _current_progress(self) -> float:
        if self._progress is None and self.follows_progress:
            raise UserError(
                'neck.branch and a growing neck.train_queries follow the training progress. Fix: '
                "custom_hooks=[dict(type='lm4ve.NeckProgressHook')], or neck.set_progress(step / "
                'steps) before each step of a loop of your own.'
            )
        return self._progress or 0.0

    def _rests(self) -> bool:
        """Whether the block is a branch that has no part in this pass."""
        if self.branch is None:
            return False
        return not self.training or self.branch.at(self._current_progress()) == 0

    def _identity(self, tokens: Tensor, queries: Queries) -> Tensor:
        """Return the tokens as they came, ``[B, Q, C]``."""
        out = take_tokens(tokens, queries)
        if self.training:  # DDP waits for a gradient of every parameter
            out = out + 0 * (self.mapper_in.weight.sum() + self.mapper_out.weight.sum())
        return out

    def _draw(
        self, tokens: Tensor, padding_mask: Tensor | None, queries: Queries, is_map: bool
    ) -> Tensor | None:
        """Return the tokens that this training step computes, int64 ``[B, k]``, or None for all.

        Raises:
            UserError: The host reads certain tokens, or a map or a mask of all of them.
        """
        if self.train_queries is None or not self.training or self._observed:
            return None
        raw, extra = self.out_type == 'raw', self.num_extra_tokens
        if queries is not None or (raw and (is_map or padding_mask is not None)):
            raise UserError(
                'neck.train_queries gives fewer tokens back, and this host reads certain tokens, a '
                "map, or all tokens of a mask. Fix: out_type='avg_featmap', or no train_queries."
            )
        progress = self._current_progress()
        drawn = self.train_queries.draw(tokens, padding_mask, extra, progress)
        if drawn is None or not raw:
            return drawn
        first = torch.arange(extra, device=drawn.device)
        return torch.cat([first.expand(len(drawn), -1), drawn], dim=1)

    # ------------------------------------------------------------------ checkpoints
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

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if not isinstance(self.block, ProvenanceMixin):  # whose record has it
            destination[prefix + NECK_KEY] = encode_source(self.settings())

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        """Load, but refuse the neck of another kind of block, even where loading is not strict.

        Raises:
            CheckpointError: The state has this neck's weights, but a record of frozen weights
                where the config has no ``LLMBlock``, or none where it has one; or it was made
                with other :meth:`settings`.
        """
        record = state_dict.pop(prefix + NECK_KEY, None)  # older checkpoints lack it
        if record is not None:
            compare_settings(decode_source(record, prefix + NECK_KEY), self.settings())
        key = f'{prefix}block.{SOURCE_KEY}'
        expected = isinstance(self.block, ProvenanceMixin)
        if f'{prefix}mapper_in.weight' in state_dict and (key in state_dict) != expected:
            raise CheckpointError(
                f"The checkpoint {'lacks' if expected else 'has'} '{key}', the record of frozen "
                f'weights, but model.neck.block of the config is a {type(self.block).__name__}. '
                'Fix: give the config that the checkpoint was trained with.'
            )
        super()._load_from_state_dict(state_dict, prefix, *others)


def _build_norm(cfg: dict[str, Any], channels: int) -> nn.Module:
    """Build a norm layer from its config, layer norms without mmcv."""
    if cfg.get('type') == 'LN':
        options = {k: v for k, v in cfg.items() if k != 'type'}
        trainable = options.pop('requires_grad', True)
        return nn.LayerNorm(channels, **options).requires_grad_(trainable)
    from mmcv.cnn import build_norm_layer

    norm: nn.Module = build_norm_layer(cfg, channels)[1]
    return norm
