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
    return dict(
        model_type='llama',
        hidden_size=width,
        intermediate_size=width * 11008 // 4096,
        vocab_size=8,
        num_attention_heads=32,
        num_hidden_layers=1,
        rms_norm_eps=1e-6,
    )


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
    parser = build_parser(description, flags or {})
    parser.add_argument('--device', default='cpu', help="'cpu' or 'cuda'")
    parser.add_argument('--out', type=Path, help='write the rows as JSON')
    for name, default in {**NUMBERS, **numbers}.items():
        words = f'{HELP.get(name, name)}; default {default}'
        parser.add_argument(f'--{name}', type=int, default=default, help=words)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    return args


def timed(function: Callable[[], object], device: str) -> dict:
    """Run a function once.

    Returns:
        dict: ``seconds``, and ``cpu_seconds`` of this process, which other processes
        hardly touch; on CUDA, where events time it, ``peak_mb`` instead.
    """
    if torch.device(device).type != 'cuda':
        cpu_start = time.process_time()
        wall_start = time.perf_counter()
        function()
        seconds = time.perf_counter() - wall_start
        return dict(seconds=seconds, cpu_seconds=time.process_time() - cpu_start)
    torch.cuda.reset_peak_memory_stats()
    start = torch.cuda.Event(enable_timing=True)
    end = torch.cuda.Event(enable_timing=True)
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
    times: dict[object, list[dict]] = {name: [] for name in functions}
    rounds = range(args.warmup + args.repeats)
    for number in tqdm(rounds, 'rounds of measurements', disable=None):
        for name, run in functions.items():
            row = timed(run, args.device)
            if number >= args.warmup:
                times[name].append(row)
    return times


def middle(rows: list[dict]) -> dict:
    """Return the median seconds and, where measured, the largest peak memory of rounds."""
    middle_row = dict(seconds=statistics.median(row['seconds'] for row in rows))
    peaks = [row['peak_mb'] for row in rows if 'peak_mb' in row]
    if peaks:
        middle_row['peak_mb'] = max(peaks)
    return middle_row


def ratio(these: list[dict], those: list[dict], key: str = 'seconds') -> float:
    """Return the median over rounds of the ratio of seconds within a round."""
    pairs = zip(these, those, strict=True)
    return statistics.median(this[key] / that[key] for this, that in pairs)


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
    seconds = [timed(lambda: a @ b, device)['seconds'] for _ in range(16)]
    del seconds[0]  # the first one warms up
    return rows * width * width / min(seconds)


def machine(device: str) -> str:
    """Name the machine, the software and the day."""
    if torch.device(device).type == 'cuda':
        name = torch.cuda.get_device_name()
    else:
        name = processor()
    threads = torch.get_num_threads()
    return f'{name}; {threads} threads; torch {torch.__version__}; {date.today()}'


def processor() -> str:
    """Name the CPU and the instructions of it that make products of matrices fast."""
    name = platform.processor()
    info = Path('/proc/cpuinfo')
    if not info.is_file():
        return name
    lines = re.findall(r'^(.*?)\s*: (.*)$', info.read_text(), re.M)
    values = defaultdict(str, lines)
    # Virtual machines often hide the model's name, but never its numbers.
    numbers = f'family {values["cpu family"]}, model {values["model"]}'
    flags = set(values['flags'].split())
    fast = sorted(flags & {'avx2', 'avx512f', 'avx512_bf16', 'amx_bf16'})
    return f'{values["model name"] or name} ({numbers}), {" ".join(fast)}'


def cell(value: object) -> str:
    if isinstance(value, float):
        return f'{value:.4g}'
    return str(value or '-')


def report(title: str, rows: list[dict], args: argparse.Namespace, note: str) -> None:
    """Print rows as a table, with a dash where a row has no value, and write them as JSON."""
    where = machine(args.device)
    empty = {}
    for row in rows:
        empty |= dict.fromkeys(row, '-')
    table = []
    for row in rows:
        cells = {name: cell(value) for name, value in row.items()}
        table.append(empty | cells)
    print_table(f'{title}\n{where}', table)
    print(note)
    if args.out:
        write_json(dict(title=title, machine=where, rows=rows), args.out)
