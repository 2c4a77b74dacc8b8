"""Train in mixed precision on any device: what ``lm4ve train --amp bf16|fp16`` does."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from torch import nn

from lm4ve.blocks.auto_dtype import AUTO, computes_bfloat16
from lm4ve.errors import UserError, check
from lm4ve.registry import OPTIM_WRAPPERS

#: Values of ``--amp`` -> the type that autocast computes in.
AMP_DTYPES = {'bf16': 'bfloat16', 'fp16': 'float16'}
#: Wrappers that ``--amp`` replaces; all take the same fields.
_REPLACED = ('OptimWrapper', 'AmpOptimWrapper', 'AutocastOptimWrapper')


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(AmpOptimWrapper):  # type: ignore[misc]
    """MMEngine's ``AmpOptimWrapper`` for any device, and without a scaler for bfloat16.

    The original needs a GPU and always scales the loss. bfloat16 has the range of fp32,
    in which nothing has to be scaled.

    Args:
        dtype (str): 'bfloat16', or 'float16', whose loss is scaled dynamically.
        **kwargs: Those of ``OptimWrapper``: ``optimizer``, ``clip_grad``,
            ``accumulative_counts``.
    """

    def __init__(
        self, dtype: Literal['bfloat16', 'float16'] = 'bfloat16', **kwargs: Any
    ) -> None:
        OptimWrapper.__init__(self, **kwargs)  # the parent's asks for a GPU
        check('optim_wrapper.dtype', dtype, choices=AMP_DTYPES.values())
        first_group = self.optimizer.param_groups[0]
        self.device_type = first_group['params'][0].device.type
        self.cast_dtype = getattr(torch, dtype)
        self.loss_scaler = torch.amp.GradScaler(
            self.device_type, enabled=dtype == 'float16'
        )
        # The parent passes it to the scaler; None lets the scale follow the gradients.
        self._scale_update_param = None

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the states of optimizer and scaler.

        A checkpoint of a training without a scaler has none, or an empty one; the scale
        then starts from its default.
        """
        if not state_dict.get('loss_scaler'):
            state_dict.pop('loss_scaler', None)
        super().load_state_dict(state_dict)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Let a step run under autocast, and synchronize gradients as ``OptimWrapper`` does."""
        autocast = torch.autocast(self.device_type, dtype=self.cast_dtype)
        with OptimWrapper.optim_context(self, model), autocast:
            yield


def use_autocast(cfg: Config, amp: str) -> None:
    """Change a config so that it trains in mixed precision.

    The optimizer wrapper keeps its other fields. With fp16 a block's dtype 'auto' becomes
    float16, since the loss is scaled.

    Args:
        cfg (Config): Changed in place.
        amp (str): A key of :data:`AMP_DTYPES`.

    Raises:
        UserError: The config does not train with one optimizer in a wrapper of MMEngine,
            or torch has no autocast for the device.
    """
    wrapper = cfg.get('optim_wrapper')
    _check_wrapper(cfg, wrapper, amp)
    device = get_device()
    if not torch.amp.is_autocast_available(device):
        raise UserError(f'--amp {amp}: torch has no autocast for {device}.')
    if amp == 'bf16' and not computes_bfloat16(device):
        print_log(
            f'--amp bf16: this {device} has no instructions for bfloat16, or torch does not '
            'report them; it may be slower than fp32.',
            logger='current',
            level=logging.WARNING,
        )
    is_sharded = bool(wrapper.get('use_fsdp'))
    if amp == 'fp16':
        _use_float16_blocks(cfg.get('model'))
    if amp == 'fp16' and is_sharded:
        wrapper.dtype = (
            'float16'  # only MMEngine's has the scaler for sharded gradients
        )
        return
    for name in ('loss_scale', 'use_fsdp'):
        wrapper.pop(name, None)
    wrapper.type = 'lm4ve.AutocastOptimWrapper'
    wrapper.dtype = AMP_DTYPES[amp]


def _check_wrapper(cfg: Config, wrapper: Any, amp: str) -> None:
    """Refuse configs whose optimizer ``--amp`` cannot wrap.

    Raises:
        UserError: It says why.
    """
    flag = f'--amp {amp}'
    runner_type = cfg.get('runner_type', 'Runner')
    if runner_type != 'Runner':
        raise UserError(
            f"{flag}: the precision of runner_type='{runner_type}' is a field of its "
            'strategy. Fix: set it there.'
        )
    if not wrapper:
        raise UserError(f'{flag}: the config has no optim_wrapper, so nothing trains.')
    if 'optimizer' not in wrapper:
        raise UserError(
            f'{flag}: optim_wrapper has several optimizers. Fix: give each of them '
            "type='lm4ve.AutocastOptimWrapper' in the config."
        )
    kind = str(wrapper.get('type', 'OptimWrapper'))
    if kind.rpartition('.')[2] not in _REPLACED:
        raise UserError(
            f"{flag}: optim_wrapper.type='{kind}' has a precision of its own. "
            "Fix: optim_wrapper.type='OptimWrapper'."
        )


def _use_float16_blocks(node: Any) -> None:
    """Set the dtype of blocks from 'auto' to float16, in a part of a config and below it."""
    if isinstance(node, ConfigDict):
        # The name may have a scope, as 'lm4ve.LLMBlock'.
        name = str(node.get('type')).rpartition('.')[2]
        if name == 'LLMBlock' and node.get('dtype') == AUTO:
            node.dtype = 'float16'
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for value in node:
            _use_float16_blocks(value)
