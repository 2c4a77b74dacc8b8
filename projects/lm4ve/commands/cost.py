"""Count the cost of a training step of a config; neither weights nor a GPU are needed.

    lm4ve cost CONFIG                             # operations, memory, checkpoint
    lm4ve cost CONFIG --base CONFIG --batch 32    # and the ratio of operations to
    another config lm4ve cost CONFIG --gpus 8 64 512             # and the bytes that
    each GPU sends in a step

docs/guides/cost.md describes how it counts.
"""

from collections.abc import Mapping, Sequence

from lm4ve.commands.flags import parser_of
from lm4ve.cost.step import cost_of_step
from lm4ve.errors import check
from lm4ve.runner.config import read_checked_config
from lm4ve.runner.tables import print_table


def main(argv: Sequence[str] | None = None) -> None:
    args = parser_of('cost').parse_args(argv)
    for value in [args.batch or 1, *(args.gpus or [])]:
        check('--batch, --gpus', value, least=1)
    cost = cost_of_step(read_checked_config(args.config, args.cfg_options), args.batch)
    backward = {'all': f'{cost.backward / 1e9:,.2f}'}
    rows = [
        {
            'part': p,
            'forward [GMAC]': f'{n / 1e9:,.2f}',
            'backward [GMAC]': backward.get(p, ''),
        }
        for p, n in cost.forward.items()
    ]
    print_table(f'{args.config}, a training step of {cost.batch}', rows)
    print(f'parameters: {cost.trainable:,} trainable, {cost.frozen:,} frozen')
    print(f'weights: {_by_dtype(cost.weights)}')
    print(
        f'gradients: {_gigabytes(cost.gradients)}, optimizer: {_gigabytes(cost.optimizer)}'
    )
    print(f'activations kept for the backward pass: {_by_dtype(cost.saved)}')
    print(f'checkpoint: {cost.checkpoint / 1e6:,.0f} MB')
    if args.base is not None:
        base = cost_of_step(read_checked_config(args.base), args.batch or cost.batch)
        print(f'operations relative to the base: {cost.macs / base.macs:.3f}')
    for n in args.gpus or ():
        sent = ', '.join(
            f'{how} {b / 1e6:,.1f} MB' for how, b in cost.bytes_sent(n).items()
        )
        print(f'{n} GPUs, each GPU sends in a step: {sent}')


def _by_dtype(sizes: Mapping) -> str:
    parts = [
        f'{_gigabytes(v)} {str(k).removeprefix("torch.")}'
        for k, v in sizes.items()
        if v
    ]
    return f'{_gigabytes(sum(sizes.values()))} ({", ".join(parts)})'


def _gigabytes(size: int) -> str:
    return f'{size / 1e9:.2f} GB'
