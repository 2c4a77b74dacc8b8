"""The encoder's final norm, which the neck applies after the block."""

from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

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


def describe_norm(norm: nn.Module | None) -> dict[str, Any] | None:
    """Return what a checkpoint records of a norm: what its weights do not show.

    Args:
        norm (nn.Module, optional): The norm as it was built; None for none.
    """
    if norm is None:
        return None
    # Both kinds of batch norm have the same weights, and in evaluation the same results.
    kind = type(norm).__name__.replace('SyncBatchNorm', 'BatchNorm1d')
    description = dict(type=kind, eps=getattr(norm, 'eps', None))
    if isinstance(norm, nn.GroupNorm):
        description['num_groups'] = norm.num_groups
    return description


def is_over_tokens(norm: nn.Module | None, as_built: bool = False) -> bool:
    """Return whether a norm takes its statistics over tokens.

    Such a norm expects the channels in dimension 1. All others normalize each token,
    and expect the channels in the last dimension.

    Args:
        norm (nn.Module, optional): The norm as it is now. peft, ``torch.compile`` and
            FSDP put a wrapper in its place, whose class does not show what it wraps.
        as_built (bool): The answer for modules that are none of torch's norms: what
            this function returned for the norm that the neck was built with.
    """
    # All batch and instance norms have this base class.
    if isinstance(norm, (nn.GroupNorm, _NormBase)):
        return True
    if isinstance(norm, (nn.LayerNorm, nn.RMSNorm)):
        return False
    return as_built


def normalize(x: Tensor, norm: nn.Module | None, over_tokens: bool) -> Tensor:
    """Apply a norm to the channels of tokens.

    Args:
        x (Tensor): ``[B, Q, C]`` or ``[B, C]``.
        norm (nn.Module, optional): A norm over C channels; None: nothing is done.
        over_tokens (bool): Whether it expects ``[B, C, Q]``, see
            :func:`is_over_tokens`.

    Returns:
        Tensor: In the shape of ``x``.
    """
    if norm is None:
        return x
    if x.dim() == 3 and over_tokens:
        normed: Tensor = norm(x.mT).mT
    else:
        normed = norm(x)
    return normed


def refuse_norm_of_padding(norm: nn.Module | None, over_tokens: bool) -> None:
    """Refuse a norm whose statistics are over tokens, some of which are padding.

    Raises:
        UserError: They are over tokens; see :func:`is_over_tokens`.
    """
    if over_tokens:
        kind = type(norm).__name__
        raise UserError(
            f'neck.norm_cfg: {kind} would count padding in. Fix: LN or RMSNorm.'
        )
