"""What many GPUs send each other in a training step, and how long that takes at a link's rate.

Data-parallel training averages the gradients of trained parameters by a ring all-reduce; FSDP
gathers parameters for the forward and again for the backward pass, and scatters gradients.
A ring of N sends (N - 1) / N of the data from each GPU for a gathering, and as much for a
scattering; an all-reduce is both (Patarasuk and Yuan, J. Parallel Distrib. Comput. 69, 2009).
Frozen tensors of blocks are no parameters, so neither sends them.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from lm4ve.cost.report import page_rows
from lm4ve.cost.step import StepCost, cost_of_step
from lm4ve.runner.config import read_config

#: Rates of a machine's network, Gbit/s: Ethernet of clouds, and one and eight adapters of
#: InfiniBand NDR.
LINKS = (25, 100, 400, 3200)
#: A GPU's 16-bit products, operations a second, of which a training reaches a share; an A100's.
PEAK, UTILIZATION = 312e12, 0.4
#: Name of the page's table; the page has it between two comments.
TABLE = 'what is sent in a step'


class Traffic(NamedTuple):
    """Bytes that each GPU sends in a step, and receives.

    Attributes:
        data_parallel (float): By DDP.
        with_frozen (float): By DDP, if what is frozen were parameters with gradients.
        sharded (float): By FSDP with all parameters sharded; frozen tensors stay whole.
        sharded_block (float): The same, if the frozen tensors were sharded and gathered too.
    """

    data_parallel: float
    with_frozen: float
    sharded: float
    sharded_block: float


def traffic(cost: StepCost, gpus: int) -> Traffic:
    """Return what is sent in a step that updates the weights.

    Args:
        cost (StepCost): Of one process.
        gpus (int): How many processes train together.
    """
    share = (gpus - 1) / gpus
    return Traffic(
        data_parallel=2 * share * cost.gradients,
        with_frozen=2 * share * (cost.gradients + cost.fixed),
        sharded=3 * share * cost.gradients,
        sharded_block=share * (3 * cost.gradients + 2 * cost.fixed),
    )


def seconds_on_link(sent: float, gigabits: float) -> float:
    """Return how long a ring takes where it leaves a machine.

    Of the links of a ring through machines of several GPUs, one enters and one leaves each, with
    as many bytes as every other one. Latencies are left out.

    Args:
        sent (float): Bytes that each GPU sends.
        gigabits (float): What the machine's network sends, in Gbit/s.
    """
    return sent * 8 / (gigabits * 1e9)


def seconds_of_gpu(cost: StepCost, peak: float = PEAK, utilization: float = UTILIZATION) -> float:
    """Return how long a GPU computes a step that reaches a share of its peak rate."""
    return 2 * cost.counts.total_macs() / (peak * utilization)


def scaling_rows(cost: StepCost, gpus: Iterable[int], link: float) -> list[dict[str, str]]:
    """Return the rows of the screen's table: what is sent, and what that does to a step.

    Args:
        cost (StepCost): Of one process.
        gpus (Iterable[int]): Numbers of processes.
        link (float): See :func:`seconds_on_link`.
    """
    rows = []
    step = seconds_of_gpu(cost)
    for n in gpus:
        sent = traffic(cost, n)
        wait = seconds_on_link(sent.data_parallel, link)
        rows.append({
            'GPUs': f'{n:,}',
            'DDP [MB]': f'{sent.data_parallel / 1e6:,.0f}',
            'if the block were sent [MB]': f'{sent.with_frozen / 1e6:,.0f}',
            'FSDP [MB]': f'{sent.sharded / 1e6:,.0f}',
            'FSDP, block sharded [MB]': f'{sent.sharded_block / 1e6:,.0f}',
            f'DDP at {link:g} Gbit/s [ms]': f'{1e3 * wait:,.1f}',
            'of a step': f'{wait / step:.1%}',
        })  # fmt: skip
    return rows


def page_table(configs: Path, names: Sequence[str] | None = None) -> str:
    """Return the table of docs/results/scaling.md as Markdown; a config takes some seconds.

    Args:
        configs (Path): The folder of configs.
        names (Sequence[str], optional): Configs below it. Default: those of docs/results/cost.md.
    """
    head = ['config', 'gradients MB', 'sent by 8', '64', '512', 'FSDP 512', 'block sent, 512']
    head += ['FSDP, block sharded, 512', 'step ms', *(f'{link} Gbit/s ms' for link in LINKS)]
    head += ['share at 100 Gbit/s']
    lines = [f'| {" | ".join(head)} |', f'|{"---|" * len(head)}']
    for name in [row.config for row in page_rows()] if names is None else names:
        cost = cost_of_step(read_config(configs / name))
        few, more, many = (traffic(cost, n) for n in (8, 64, 512))
        step, sent = seconds_of_gpu(cost), many.data_parallel
        sizes = [cost.gradients, few.data_parallel, more.data_parallel, sent, many.sharded]
        sizes += [many.with_frozen, many.sharded_block]
        waits = [1e3 * seconds_on_link(sent, link) for link in LINKS]
        cells = [f'`{name}`', *(f'{size / 1e6:,.0f}' for size in sizes), f'{1e3 * step:,.1f}']
        cells += [*(f'{wait:,.1f}' for wait in waits), f'{waits[1] / 1e3 / step:.0%}']
        lines.append(f'| {" | ".join(cells)} |')
    return '\n'.join(lines)
