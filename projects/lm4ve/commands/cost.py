"""Count the cost of a training step of a config; neither weights nor a GPU are needed.

    lm4ve cost CONFIG                             # operations, memory, checkpoint
    lm4ve cost CONFIG --base CONFIG --batch 32    # and the ratio of operations to another config
    lm4ve cost CONFIG --gpus 8 64 512             # and the bytes that each GPU sends in a step

docs/guides/cost.md describes how it counts.
"""

from collections.abc import Mapping, Sequence

import torch

from lm4ve.commands.flags import parser_of
from lm4ve.cost.step import StepCost, cost_of_step
from lm4ve.errors import check
from lm4ve.runner.config import read_checked_config
from lm4ve.runner.tables import print_table


def main(argv: Sequence[str] | None = None) -> None:
    """Count a training step of the config, print the counts, and compare them with the base."""
    args = parser_of('cost').parse_args(argv)
    gpus = args.gpus or []
    if args.batch is not None:
        check('--batch', args.batch, least=1)
    for count in gpus:
        check('--gpus', count, least=1)
    cost = cost_of_step(read_checked_config(args.config, args.cfg_options), args.batch)
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
    gradients = _gigabytes(cost.gradients)
    print(f'gradients: {gradients}, optimizer: {_gigabytes(cost.optimizer)}')
    print(f'activations kept for the backward pass: {_describe_bytes(cost.saved)}')
    print(f'checkpoint: {cost.checkpoint / 1e6:,.0f} MB')


def _describe_bytes(sizes: Mapping[torch.dtype, int]) -> str:
    """Return a number of bytes as text: the sum, and in brackets that of each dtype."""
    parts = []
    for dtype, size in sizes.items():
        if size:
            name = str(dtype).removeprefix('torch.')
            parts.append(f'{_gigabytes(size)} {name}')
    return f'{_gigabytes(sum(sizes.values()))} ({", ".join(parts)})'


def _gigabytes(size: int) -> str:
    """Return a number of bytes as text, in GB of 10^9."""
    return f'{size / 1e9:.2f} GB'
