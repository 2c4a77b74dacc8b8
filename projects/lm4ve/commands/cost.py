"""Count and estimate the cost of training a config; neither weights nor a GPU are needed.

    lm4ve cost CONFIG                             # operations, memory, checkpoint
    lm4ve cost CONFIG --base CONFIG --batch 32    # and the ratio of operations to another config
    lm4ve cost CONFIG --gpus 8 64 512             # and the bytes that each GPU sends in a step
    lm4ve cost CONFIG --device a100 --gpus 4      # and an estimate of seconds and GPU hours

docs/guides/cost.md describes how it counts and what it assumes.
"""

import argparse
from collections.abc import Mapping

import torch
from mmengine.config import Config

from lm4ve.cost import GPUS, TrainingEstimate, estimate_training
from lm4ve.cost.length import Length
from lm4ve.cost.step import StepCost, cost_of_step
from lm4ve.errors import check, require
from lm4ve.runner.config import read_checked_config
from lm4ve.runner.tables import print_table


def run(args: argparse.Namespace) -> None:
    """Count a training step of the config, print the counts, and compare them with the base."""
    gpus = args.gpus or []
    if args.batch is not None:
        check('--batch', args.batch, least=1)
    for count in gpus:
        check('--gpus', count, least=1)
    check_device(args)
    cfg = read_checked_config(args.config, args.cfg_options)
    cost = cost_of_step(cfg, args.batch)
    print_cost(cost, args.config)
    if args.base is not None:
        batch = cost.batch if args.batch is None else args.batch
        base = cost_of_step(read_checked_config(args.base), batch)
        print(f'operations relative to the base: {cost.macs / base.macs:.3f}')
    for count in gpus:
        sent = []
        for method, size in cost.bytes_sent(count).items():
            sent.append(f'{method} {size / 1e6:,.1f} MB')
        print(f'{count} GPUs, each GPU sends in a step: {", ".join(sent)}')
    if args.device is not None:
        print_estimates(cfg, cost, args)


def check_device(args: argparse.Namespace) -> None:
    """Refuse flags of an estimate that do not go together, before anything is counted.

    Raises:
        UserError: It names the flag.
    """
    if args.device is not None:
        check('--device', args.device, choices=GPUS)
    if args.samples is not None:
        require(args.device is not None, '--samples needs --device.')


def print_cost(cost: StepCost, config: str) -> None:
    """Print operations, parameters and bytes of a training step.

    Args:
        cost (StepCost): The counts.
        config (str): The config, for the title.
    """
    rows = []
    for part, macs in cost.forward.items():
        row = {
            'part': part,
            'forward [GMAC]': f'{macs / 1e9:,.2f}',
            'backward [GMAC]': '',
        }
        if part == 'all':
            row['backward [GMAC]'] = f'{cost.backward / 1e9:,.2f}'
        rows.append(row)
    print_table(f'{config}, a training step of {cost.batch}', rows)
    print(f'parameters: {cost.trainable:,} trainable, {cost.frozen:,} frozen')
    print(f'weights: {_describe_bytes(cost.weights)}')
    precision = 'fp32'
    if cost.amp is not None:
        precision = f'autocast in {_name_of(cost.amp)}'
    print(f'precision: {precision}')
    print(f'activations kept for the backward pass: {_describe_bytes(cost.saved)}')
    print(f'checkpoint: {cost.checkpoint / 1e6:,.0f} MB')
    print_memory(cost.memory)


def print_memory(memory: Mapping[str, int]) -> None:
    """Print what takes memory at the peak of a step."""
    rows = [
        {
            'memory at the peak of a step': 'all',
            'GB': f'{sum(memory.values()) / 1e9:.2f}',
        }
    ]
    for part, size in memory.items():
        if size > 0:
            rows.append(
                {'memory at the peak of a step': part, 'GB': f'{size / 1e9:.2f}'}
            )
    print_table('Counted; the allocator and the context of a GPU come on top', rows)


def print_estimates(cfg: Config, cost: StepCost, args: argparse.Namespace) -> None:
    """Print estimated seconds of a step and hours of the training on a GPU.

    Args:
        cfg (Config): The config.
        cost (StepCost): The counts of its step.
        args (argparse.Namespace): The flags.
    """
    device = GPUS[args.device]
    rows = []
    for gpus in args.gpus or [1]:
        estimate = estimate_training(
            cfg, device, gpus, args.batch, args.samples, cost=cost
        )
        rows.append(_row_of(estimate))
    caption = _describe_length(estimate.length)
    print_table(f'Estimate, not measured, on {device.title}', rows, caption)


def _describe_length(length: Length) -> str:
    """Return where the number of steps is from, as text."""
    if length.samples is None:
        return 'steps: max_iters of the config'
    return f'steps: an epoch has {length.samples:,} samples'


def _row_of(estimate: TrainingEstimate) -> dict[str, str]:
    """Return an estimate as a row of the table."""
    fits = 'yes' if estimate.fits else 'no'
    return {
        'GPUs': str(estimate.gpus),
        'forward [s]': f'{estimate.step.forward:.4f}',
        'backward [s]': f'{estimate.step.backward:.4f}',
        'update [s]': f'{estimate.step.update:.4f}',
        'sending [s]': f'{estimate.step.sending:.4f}',
        'step [s]': f'{estimate.step_seconds:.4f}',
        'step without overlap [s]': f'{estimate.step.one_after_the_other:.4f}',
        'steps': f'{estimate.length.steps:,}',
        'hours': f'{estimate.hours:,.1f}',
        'GPU hours': f'{estimate.gpu_hours:,.1f}',
        'GB of each': f'{estimate.peak / 1e9:.1f}',
        'fits': fits,
    }


def _describe_bytes(sizes: Mapping[torch.dtype, int]) -> str:
    """Return a number of bytes as text: the sum, and in brackets that of each dtype."""
    parts = []
    for dtype, size in sizes.items():
        if size:
            parts.append(f'{_gigabytes(size)} {_name_of(dtype)}')
    return f'{_gigabytes(sum(sizes.values()))} ({", ".join(parts)})'


def _name_of(dtype: torch.dtype) -> str:
    """Return the name of a dtype, for example 'float16'."""
    return str(dtype).removeprefix('torch.')


def _gigabytes(size: int) -> str:
    """Return a number of bytes as text, in GB of 10^9."""
    return f'{size / 1e9:.2f} GB'
