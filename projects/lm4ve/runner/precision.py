"""The precision of a run: what the fields of its config set, and the line of its log.

`env_cfg.tf32`, `channels_last` and `compile` are read by our runner. Mixed precision is a
wrapper of the optimizer (:mod:`.autocast`), `env_cfg.cudnn_benchmark` is MMEngine's,
`optimizer.fused` is torch's, and the dtype of a frozen block is the block's.
"""

import logging
from collections.abc import Iterator

import torch
from mmengine.hooks import Hook
from mmengine.optim import AmpOptimWrapper, OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from torch import nn

from lm4ve.blocks import LLMBlock
from lm4ve.errors import UserError
from lm4ve.runner.console import SHOWN
from lm4ve.runner.process_rank import find_difference

#: The number of dimensions of a convolution's weight -> the layout with channels last.
_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def set_tf32(tf32: bool | None = None) -> None:
    """Allow or forbid TF32 in fp32 products and convolutions on NVIDIA GPUs (Ampere on).

    TF32 rounds the factors to ten bits. torch's own setting is used with None: TF32 in
    convolutions only. Nothing changes on a CPU.

    Args:
        tf32 (bool | None): The field ``env_cfg.tf32``.
    """
    if tf32 is None:
        return
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32


def put_channels_last(model: nn.Module) -> None:
    """Store the weights of 2D and 3D convolutions with the channels last, in place.

    torch then computes the convolutions and what follows them in this layout, which
    tensor cores read faster. Results differ by rounding alone.
    """
    for module in model.modules():
        if not isinstance(module, nn.modules.conv._ConvNd):
            continue
        memory_format = _CHANNELS_LAST.get(module.weight.dim())
        if memory_format is not None:
            weight = module.weight.data
            module.weight.data = weight.contiguous(memory_format=memory_format)


class PrecisionHook(Hook):  # type: ignore[misc]
    """Log in which precision a training computes, after a checkpoint was loaded.

    It warns of a float16 block without a loss scaler.
    """

    # After the lines at the start of the console, which the hook before it prints.
    priority = 'LOWEST'

    def before_train(self, runner: Runner) -> None:
        """Log the precision."""
        dtypes = _block_dtypes(runner.model)
        text = describe_precision(runner)
        runner.logger.info(f'{"precision":12} {text}', extra=SHOWN)
        scales = any(_scales_loss(wrapper) for wrapper in optim_wrappers(runner))
        if 'float16' in dtypes and not scales:
            runner.logger.log(
                logging.WARNING,
                "block.dtype='float16' without a loss scaler: small gradients are zero. "
                "Fix: model.neck.block.dtype='auto', or --amp fp16.",
            )


def describe_precision(runner: Runner) -> str:
    """Describe the precision of a runner's training in one line.

    For example 'float32, TF32 in convolutions; block bfloat16; fused AdamW'.

    Args:
        runner (Runner): Its model and its optimizer are built.
    """
    parts = []
    for wrapper in optim_wrappers(runner):
        parts.append(_trunk_precision(runner.model, wrapper))
    dtypes = _block_dtypes(runner.model)
    if dtypes:
        parts.append(f'block {" and ".join(dtypes)}')
    if runner.cfg.get('channels_last'):
        parts.append('channels_last')
    if torch.backends.cudnn.benchmark:
        parts.append('cudnn_benchmark')
    for wrapper in optim_wrappers(runner):
        if any(group.get('fused') for group in wrapper.optimizer.param_groups):
            parts.append(f'fused {type(wrapper.optimizer).__name__}')
    if runner.cfg.get('compile'):
        parts.append('compiled')
    return '; '.join(dict.fromkeys(parts))  # of several optimizers each part once


def optim_wrappers(runner: Runner) -> Iterator[OptimWrapper]:
    """Yield the wrappers of a runner's optimizers, of which there may be several."""
    if isinstance(runner.optim_wrapper, OptimWrapperDict):
        yield from runner.optim_wrapper.values()
    else:
        yield runner.optim_wrapper


def _scales_loss(wrapper: OptimWrapper) -> bool:
    """Return whether a wrapper scales the loss."""
    return isinstance(wrapper, AmpOptimWrapper) and wrapper.loss_scaler.is_enabled()


def _trunk_precision(model: nn.Module, wrapper: OptimWrapper) -> str:
    """Describe in which type everything but the blocks computes."""
    parameter = next(model.parameters())
    device = parameter.device.type
    text = _name(parameter.dtype)
    if isinstance(wrapper, AmpOptimWrapper):
        cast = wrapper.cast_dtype or torch.get_autocast_dtype(device)
        text += f', autocast {_name(cast)}'
    if _scales_loss(wrapper):
        text += ' with a loss scaler'
    if device == 'cuda':
        text += f', {_describe_tf32()}'
    return text


def _describe_tf32() -> str:
    """Describe where fp32 is computed in TF32."""
    uses = []
    if torch.backends.cuda.matmul.allow_tf32:
        uses.append('products')
    if torch.backends.cudnn.allow_tf32:
        uses.append('convolutions')
    if not uses:
        return 'no TF32'
    return f'TF32 in {" and ".join(uses)}'


def _name(dtype: torch.dtype) -> str:
    """Return a type's name as configs have it."""
    return str(dtype).removeprefix('torch.')


def _block_dtypes(model: nn.Module) -> list[str]:
    """Return the types of a model's blocks, each once."""
    found = {m.source['dtype'] for m in model.modules() if isinstance(m, LLMBlock)}
    return sorted(found)


def refuse_other_dtypes(model: nn.Module) -> None:
    """Refuse blocks that have another type in another process.

    With dtype='auto' it follows from the GPUs that a process sees. MMEngine broadcasts
    the model later, with the records of its blocks, and gloo ends a process in which
    these have another length.

    Args:
        model (nn.Module): The model as every process has built it.

    Raises:
        UserError: It names two processes.
    """
    difference = find_difference(_block_dtypes(model))
    if difference is None:
        return
    first, rank, other = difference
    raise UserError(
        f'model.neck.block.dtype is {first} in process 0 and {other} in process {rank}: '
        "'auto' follows from a machine's GPUs. Fix: name the dtype, for example float32."
    )
