"""The encoder's final norm, which the neck applies after the block."""

from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lm4ve.errors import UserError, build_from, check


def _group_norm(
    channels: int, num_groups: int, eps: float = 1e-5, affine: bool = True
) -> nn.GroupNorm:
    """Build a group norm with the channels first, as all other norms have them."""
    return nn.GroupNorm(num_groups, channels, eps, affine)


#: mmcv's words for norms. A neck's features are tokens, so all norms are those of 1D.
NORMS: dict[str, Any] = {
    'LN': nn.LayerNorm,
    'LN2d': nn.LayerNorm,
    'BN': nn.BatchNorm1d,
    'BN1d': nn.BatchNorm1d,
    'BN2d': nn.BatchNorm1d,
    'BN3d': nn.BatchNorm1d,
    'RMSNorm': nn.RMSNorm,
    'SyncBN': nn.SyncBatchNorm,
    'GN': _group_norm,
}


def build_norm(cfg: dict[str, Any] | None, channels: int) -> nn.Module | None:
    """Build a norm from a config in mmcv's words; None for no norm.

    Raises:
        UserError: There is no norm of this type, or it has no such argument.
    """
    if cfg is None:
        return None
    options = dict(cfg)
    trainable = options.pop('requires_grad', True)
    path = str(options.pop('type', None))
    kind = path.rpartition('.')[2]
    check('neck.norm_cfg.type', kind, choices=NORMS)
    build = partial(NORMS[kind], channels)
    norm: nn.Module = build_from(build, options, 'neck.norm_cfg')
    return norm.requires_grad_(trainable)


def normalize(x: Tensor, norm: nn.Module | None) -> Tensor:
    """Apply a norm to the channels of tokens.

    Args:
        x (Tensor): ``[B, Q, C]`` or ``[B, C]``.
        norm (nn.Module, optional): A norm over C channels; None: nothing is done. Batch
            and group norms expect the channels in dimension 1, ``[B, C, Q]``.

    Returns:
        Tensor: In the shape of ``x``.
    """
    if norm is None:
        return x
    takes_channels_last = isinstance(norm, (nn.LayerNorm, nn.RMSNorm))
    if x.dim() == 2 or takes_channels_last:
        normed: Tensor = norm(x)
    else:
        normed = norm(x.mT).mT
    return normed


def refuse_norm_of_padding(norm: nn.Module | None) -> None:
    """Refuse a norm whose statistics are over tokens, some of which are padding.

    Raises:
        UserError: It is a group or batch norm.
    """
    if isinstance(norm, (nn.GroupNorm, _BatchNorm)):
        kind = type(norm).__name__
        raise UserError(
            f'neck.norm_cfg: {kind} would count padding in. Fix: LN or RMSNorm.'
        )
