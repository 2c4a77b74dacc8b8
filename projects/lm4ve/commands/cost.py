"""Tell what a training step of a config costs; neither weights nor a GPU are needed.

    lm4ve cost CONFIG                                  # operations, memory, checkpoint
    lm4ve cost CONFIG --base CONFIG --batch 32         # and the ratio to another config
    lm4ve cost CONFIG --base CONFIG --calibrate rates.json
                                                       # by this machine's rates, which are kept
    lm4ve cost CONFIG --gpus 8 64 512 --link 100       # and what GPUs send each other in a step

docs/guides/cost.md says what is counted, and how the ratio is predicted.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

import lm4ve  # noqa: F401  (registers before the config is read)
from lm4ve.cost.prediction import Rates, measure_rates, read_rates
from lm4ve.cost.report import screen_lines, screen_rows
from lm4ve.cost.scaling import PEAK, UTILIZATION, scaling_rows, seconds_of_gpu
from lm4ve.cost.step import StepCost, cost_of_step
from lm4ve.cost.tables import print_table
from lm4ve.errors import UserError
from lm4ve.runner.command_line import config_parser
from lm4ve.runner.config import read_config


def main(argv: Sequence[str] | None = None) -> None:
    parser = config_parser(__doc__)
    add = parser.add_argument
    add('--base', help='a config to compare with, for example the one without a block')
    add('--batch', type=int, help="samples of one process; default: the config's")
    add('--rates', help='the rates of a machine, as --calibrate wrote them')
    add('--calibrate', type=Path, help='measure the rates of this machine and write them here')
    add('--device', default='cpu', help='what --calibrate measures; default: cpu')
    add('--gpus', type=int, nargs='+', help='also what so many GPUs send each other in a step')
    add('--link', type=float, default=100, help="a machine's network in Gbit/s; default: 100")
    args = parser.parse_args(argv)
    if min(args.gpus or [1]) < 1 or args.link <= 0:
        raise UserError(
            f'--gpus={args.gpus} and --link={args.link:g} must be positive. Fix: --gpus 8 --link '
            '100.'
        )
    if args.batch is not None and args.batch < 1:
        raise UserError(f'--batch={args.batch} must be 1 or more. Fix: --batch 1.')
    rates = None if args.rates is None else read_rates(args.rates)
    cost = cost_of_step(read_config(args.config, args.cfg_options), args.batch)
    base = None
    if args.base is not None:
        base = cost_of_step(read_config(args.base), args.batch or cost.batch)
    if args.calibrate is not None:
        rates = _measured(args.calibrate, args.device, (cost, base or cost))
    print_table(f'{args.config}, a training step of {cost.batch}', screen_rows(cost))
    print('\n'.join(screen_lines(cost, base, rates)))
    if args.gpus:
        title = f'what each GPU sends in a step; a step: {1e3 * seconds_of_gpu(cost):,.1f} ms at '
        title += f'{UTILIZATION:.0%} of {PEAK / 1e12:g} Tflop/s'
        print_table(title, scaling_rows(cost, args.gpus, args.link))


def _measured(path: Path, device: str, costs: Iterable[StepCost]) -> Rates:
    """Measure the rates of all types that steps compute in, and write them."""
    types: set[torch.dtype] = {kind.dtype for c in costs for kind in c.counts.macs}
    rates = measure_rates(device, types)
    rates.write(path)
    return rates
