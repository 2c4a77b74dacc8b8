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
from mmengine.model import BaseModule
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
from lm4ve.errors import CheckpointError, UserError, check_choice
from lm4ve.necks.guard import Use, expect_use

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
            picks the cheapest. All give the same result. Only with 'off', or
            within :meth:`observe`, is the mapper a module whose forward hooks
            fire.
        with_cp (bool): Recompute mappers and block in the backward pass
            instead of storing their activations.
        compile (bool | dict): Run mappers and block through ``torch.compile``,
            with these options.
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
        guard: bool = True,
        init_cfg: dict[str, Any] | Sequence[dict[str, Any]] | None = dict(
            type='TruncNormal', layer='Linear', std=0.02
        ),
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        check_choice('neck.residual', residual, RESIDUALS)
        check_choice('neck.out_type', out_type, OUT_TYPES)
        check_choice('neck.low_rank', low_rank, LOW_RANKS)
        self.in_channels = in_channels
        self.residual = residual
        self.out_type = out_type
        self.low_rank = low_rank
        self.with_cp = with_cp
        self.compile_options = {} if compile is True else compile or None
        self.block = block if isinstance(block, nn.Module) else MODELS.build(block)
        embed_dims: int = self.block.embed_dims
        if isinstance(self.block, RecordsFrozenSource):
            self.block.source['residual'] = residual
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
                the last entry is used: tokens ``[B, N, C]``, an image map
                ``[B, C, H, W]`` or a clip map ``[B, C, T, H, W]``.
            padding_mask (Tensor, optional): Bool ``[B, N]``, True = padding.
            queries (slice | Tensor, optional): The tokens to compute (see
                :class:`lm4ve.blocks.LLMBlock`); only for token features with
                ``out_type='raw'``.

        Returns:
            Tensor | tuple[Tensor]: A tuple if ``feats`` was a sequence. For
            'raw' in the layout of the input (``[B, Q, C]`` with queries), else
            ``[B, C]``.

        Raises:
            UserError: The features have another width or an unknown layout.
        """
        x = feats if isinstance(feats, Tensor) else feats[-1]
        tokens, restore = self._to_tokens(x)
        if queries is not None and (self.out_type != 'raw' or restore is not None):
            raise UserError(
                "queries go with tokens [B, N, C] and out_type='raw', got features "
                f"{list(x.shape)} and neck.out_type='{self.out_type}'."
            )
        if self.out_type == 'cls_token':
            if restore is not None:
                raise UserError(
                    f"neck.out_type='cls_token' needs tokens [B, N, C], got a map {list(x.shape)}. "
                    "Fix: out_type='raw' followed by a pooling neck, or 'avg_featmap'."
                )
            queries = slice(0, 1)
        if self._observed:
            out = take_tokens(self._through_block(tokens, padding_mask, None), queries)
        else:
            out = self._run(tokens, padding_mask, queries)
        if self.out_type == 'avg_featmap':
            out = _mean(out, padding_mask)
        if self.norm is not None:
            out = self.norm(out)
        if self.out_type == 'cls_token':
            out = out[:, 0]
        elif self.out_type == 'raw' and restore is not None:
            out = restore(out)
        self.use.watch(out)
        return out if isinstance(feats, Tensor) else (out,)

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if not isinstance(self.block, RecordsFrozenSource):  # whose record has it
            destination[prefix + NECK_KEY] = encode_source(dict(residual=self.residual))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        """Refuse the neck of another kind of block, even where loading is not strict.

        Raises:
            CheckpointError: The state has this neck's weights, but a record of frozen weights
                where the config has no ``LLMBlock``, or none where it has one; or it was made
                with another ``residual``.
        """
        record = state_dict.pop(prefix + NECK_KEY, None)  # older checkpoints lack it
        if record is not None:
            theirs = decode_source(record, prefix + NECK_KEY)
            compare_settings(theirs, dict(residual=self.residual))
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
        if self.compile_options is not None:
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

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        place, self.use = self.use.place, Use()
        self.use.place = place
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
        if self.residual in ('outer', 'both'):
            out = out + take_tokens(tokens, queries)
        return out

    def _to_tokens(self, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor] | None]:
        """Flatten maps to ``[B, N, C]``; also return how to undo it."""
        if x.dim() == 3:
            tokens, restore = x, None
        elif x.dim() in (4, 5):
            shape = x.shape[2:]
            tokens = x.flatten(2).transpose(1, 2)

            def restore(out: Tensor) -> Tensor:
                maps: Tensor = out.transpose(1, 2).unflatten(2, shape)
                return maps
        else:
            raise UserError(
                'LLMBlockNeck takes tokens [B, N, C], maps [B, C, H, W] or [B, C, T, H, W], got '
                f'{x.dim()} dimensions: {list(x.shape)}. Fix: let the backbone give raw features '
                "(for a ViT of mmpretrain: backbone.out_type='raw', backbone.final_norm=False)."
            )
        if tokens.shape[-1] != self.in_channels:
            raise UserError(
                f'neck.in_channels={self.in_channels}, but the backbone gives '
                f'{tokens.shape[-1]} channels (features {list(x.shape)}). '
                f'Fix: set model.neck.in_channels={tokens.shape[-1]}.'
            )
        return tokens, restore


def _build_norm(cfg: dict[str, Any], channels: int) -> nn.Module:
    """Build a norm layer from its config, layer norms without mmcv."""
    if cfg.get('type') == 'LN':
        options = {k: v for k, v in cfg.items() if k != 'type'}
        trainable = options.pop('requires_grad', True)
        return nn.LayerNorm(channels, **options).requires_grad_(trainable)
    from mmcv.cnn import build_norm_layer

    norm: nn.Module = build_norm_layer(cfg, channels)[1]
    return norm


def _mean(x: Tensor, padding_mask: Tensor | None) -> Tensor:
    """Mean over the tokens that are not padding, ``[B, N, C] -> [B, C]``."""
    if padding_mask is None:
        return x.mean(dim=1)
    kept = (~padding_mask)[..., None].to(x.dtype)
    # where(), not a product: what stands at padded places may be anything.
    x = torch.where(padding_mask[..., None], 0.0, x)
    return x.sum(dim=1) / kept.sum(dim=1)
