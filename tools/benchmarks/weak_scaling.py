"""Time a training step of one process and of two together, as far as this machine's cores go.

    python tools/benchmarks/weak_scaling.py --batch 8 --out weak_scaling.json

Weak scaling: each process keeps its batch and its one thread, so that two do twice the
work. A process first steps alone while the other one waits, then both step in DDP over
gloo; so a round meets one machine. `efficiency`: the seconds of a step alone by those
of a step together, the median over rounds; `CPU efficiency`: the same of the process's
CPU time, which other programs hardly touch: it lacks the time in which a process waits
for the other one.
"""

import statistics
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from common import middle, parse, ratio, report, timed
from steps import CONFIGS, PAIRS, trainer
from torch.nn.parallel import DistributedDataParallel

from lm4ve.cost.step import cost_of_step
from lm4ve.runner.config import read_config

PROCESSES = 2


def work(rank: int, config: str, args, store: str, results) -> None:
    """Step alone, then together, round by round; the first process sends the rounds back."""
    torch.set_num_threads(1)
    dist.init_process_group('gloo', f'file://{store}', rank=rank, world_size=PROCESSES)
    cfg = read_config(config)
    alone = trainer(cfg, args.batch, 'cpu')
    together = trainer(cfg, args.batch, 'cpu', DistributedDataParallel)
    rounds = []
    for _ in range(args.warmup + args.repeats):
        dist.barrier()
        found = [timed(alone, 'cpu')] if rank == 0 else []
        dist.barrier()
        found.append(timed(together, 'cpu'))
        rounds.append(found)
    if rank == 0:
        results.put(rounds[args.warmup :])
    del together  # a model that outlives its process group may hang
    dist.destroy_process_group()


def main(argv=None) -> None:
    flags = {
        '--task': dict(default='image', choices=PAIRS),
        '--config': dict(help="default: the task's without a block"),
    }
    args = parse(argv, __doc__, flags, batch=8, threads=1, repeats=3)
    config = args.config or str(CONFIGS / PAIRS[args.task][0])
    # Not forked from this process: where torch has threads, backward passes refuse a
    # fork.
    results = mp.get_context('forkserver').SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        shared = config, args, f'{folder}/store', results
        mp.start_processes(work, shared, PROCESSES, start_method='forkserver')
        rounds = results.get()
    alone, together = ([r[i] for r in rounds] for i in range(2))
    sent = cost_of_step(read_config(config), args.batch).bytes_sent(PROCESSES)['DDP']
    rows = []
    for count, times in ((1, alone), (PROCESSES, together)):
        row = dict(
            path=f'{count} process(es)', batch=count * args.batch, **middle(times)
        )
        row['CPU seconds'] = statistics.median(t['cpu_seconds'] for t in times)
        row['efficiency'] = ratio(alone, times)
        row['CPU efficiency'] = ratio(alone, times, 'cpu_seconds')
        row['sent MB'] = sent / 1e6 if count > 1 else 0.0
        rows.append(row)
    title = (
        f'Weak scaling of {Path(config).stem}: a step of {args.batch} samples a process'
    )
    report(title, rows, args, 'sent MB: by each process in a step, counted.')


if __name__ == '__main__':
    main()
