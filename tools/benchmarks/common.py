"""What the benchmarks share: flags, timing, the machine's own ceiling, reports."""

import argparse
import platform
import re
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import date
from pathlib import Path

import torch
from tqdm import tqdm

from lm4ve.files import write_json
from lm4ve.runner.flags import Flags, build_parser
from lm4ve.runner.tables import print_table

DTYPES = dict(float32=torch.float32, bfloat16=torch.bfloat16, float16=torch.float16)
NUMBERS = dict(threads=2, repeats=5, warmup=1, width=4096)
HELP = dict(
    width="the language model's width; smaller for a trial",
    layers='layers of the checkpoint that is written',
    queries='tokens that are read; 1 is the class token',
)


def llama(width: int) -> dict:
    """Return the ``arch`` of one LLaMA layer; 4096 is the width of LLaMA-7B."""
    sizes = dict(
        hidden_size=width, intermediate_size=width * 11008 // 4096, vocab_size=8
    )
    layer = dict(num_attention_heads=32, num_hidden_layers=1, rms_norm_eps=1e-6)
    return dict(model_type='llama', **sizes, **layer)


def parse(
    argv: list[str] | None, description: str, flags: Flags | None = None, **numbers: int
) -> argparse.Namespace:
    """Read the command line and limit torch to its threads.

    Args:
        argv (list[str], optional): The command line. Default: the process's.
        description (str): The benchmark's docstring.
        flags (Flags, optional): Its own flags.
        **numbers (int): Defaults of its own flags that are numbers, and of those of all
            benchmarks.
    """
    p = build_parser(description, flags or {})
    p.add_argument('--device', default='cpu', help="'cpu' or 'cuda'")
    p.add_argument('--out', type=Path, help='write the rows as JSON')
    for name, default in {**NUMBERS, **numbers}.items():
        words = HELP.get(name, name)
        p.add_argument(
            f'--{name}', type=int, default=default, help=f'{words}; default {default}'
        )
    args = p.parse_args(argv)
    torch.set_num_threads(args.threads)
    return args


def timed(function: Callable[[], object], device: str) -> dict:
    """Run a function once.

    Returns:
        dict: ``seconds``, and ``cpu_seconds`` of this process, which other processes
            hardly
        touch; on CUDA, where events time it, ``peak_mb`` instead.
    """
    if torch.device(device).type != 'cuda':
        start, used = time.perf_counter(), time.process_time()
        function()
        seconds = time.perf_counter() - start
        return dict(seconds=seconds, cpu_seconds=time.process_time() - used)
    torch.cuda.reset_peak_memory_stats()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    function()
    end.record()
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() / 1e6
    return dict(seconds=start.elapsed_time(end) / 1e3, peak_mb=peak)


def in_rounds(functions: dict, args: argparse.Namespace) -> dict[object, list[dict]]:
    """Time functions one after the other, round by round.

    A machine's speed drifts by more than the differences that we look for. Within
    a round all functions meet the same machine, so ratios are taken there.

    Returns:
        dict: For each name one row of :func:`timed` a round, warm-up left out.
    """
    rounds = []
    for _ in tqdm(
        range(args.warmup + args.repeats), 'rounds of measurements', disable=None
    ):
        rounds.append(
            {name: timed(run, args.device) for name, run in functions.items()}
        )
    return {name: [r[name] for r in rounds[args.warmup :]] for name in functions}


def middle(rows: list[dict]) -> dict:
    """Return the median seconds and, where measured, the largest peak memory of rounds."""
    peaks = [row['peak_mb'] for row in rows if 'peak_mb' in row]
    seconds = statistics.median(row['seconds'] for row in rows)
    return dict(seconds=seconds, **({'peak_mb': max(peaks)} if peaks else {}))


def ratio(these: list[dict], those: list[dict], key: str = 'seconds') -> float:
    """Return the median over rounds of the ratio of seconds within a round."""
    return statistics.median(a[key] / b[key] for a, b in zip(these, those, strict=True))


def step_row(own: list[dict], base: list[dict]) -> dict:
    """Return the columns of a training step: ratios to a base, and seconds."""
    row = dict(ratio=ratio(own, base))
    if 'cpu_seconds' in own[0]:
        row['CPU ratio'] = ratio(own, base, 'cpu_seconds')
        row['CPU seconds'] = statistics.median(r['cpu_seconds'] for r in own)
    return row | middle(own)


def matmul_rate(device: str, rows: int, width: int, dtype: torch.dtype) -> float:
    """Return the best MAC/s of fifteen ``[rows, width] x [width, width]`` products."""
    a = torch.randn(rows, width, dtype=dtype, device=device)
    b = torch.randn(width, width, dtype=dtype, device=device)
    runs = [
        timed(lambda: a @ b, device)['seconds'] for _ in range(16)
    ]  # the first one warms up
    return rows * width * width / min(runs[1:])


def machine(device: str) -> str:
    """Name the machine, the software and the day."""
    name, info = platform.processor(), Path('/proc/cpuinfo')
    if torch.device(device).type == 'cuda':
        name = torch.cuda.get_device_name()
    elif info.is_file():
        values = defaultdict(
            str, re.findall(r'^(.*?)\s*: (.*)$', info.read_text(), re.M)
        )
        # Virtual machines often hide the model's name, but never its numbers.
        numbers = f'family {values["cpu family"]}, model {values["model"]}'
        fast = {'avx2', 'avx512f', 'avx512_bf16', 'amx_bf16'} & {
            *values['flags'].split()
        }
        name = f'{values["model name"] or name} ({numbers}), {" ".join(sorted(fast))}'
    return f'{name}; {torch.get_num_threads()} threads; torch {torch.__version__}; {date.today()}'


def report(title: str, rows: list[dict], args: argparse.Namespace, note: str) -> None:
    """Print rows as a table, with a dash where a row has no value, and write them as JSON."""
    where = machine(args.device)
    empty, table = dict.fromkeys((name for row in rows for name in row), '-'), []
    for row in rows:
        cells = {
            k: f'{v:.4g}' if isinstance(v, float) else str(v or '-')
            for k, v in row.items()
        }
        table.append(empty | cells)
    print_table(f'{title}\n{where}', table)
    print(note)
    if args.out:
        write_json(dict(title=title, machine=where, rows=rows), args.out)
