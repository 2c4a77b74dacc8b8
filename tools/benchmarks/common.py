"""What the benchmarks share: timing, the machine's own ceiling, tables."""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

DTYPES = dict(float32=torch.float32, bfloat16=torch.bfloat16, float16=torch.float16)


def parser(description: str) -> argparse.ArgumentParser:
    """Return a parser with the flags of every benchmark."""
    p = argparse.ArgumentParser(description=description)
    p.add_argument('--device', default='cpu', help="'cpu' or 'cuda'")
    p.add_argument('--threads', type=int, default=2, help='CPU threads; default 2')
    p.add_argument('--repeats', type=int, default=5, help='timed runs; the median counts')
    p.add_argument('--warmup', type=int, default=1, help='untimed runs')
    p.add_argument('--out', type=Path, help='write the rows as JSON')
    return p


def timed(function: Callable[[], None], device: str) -> dict:
    """Run a function once.

    Returns:
        dict: ``seconds`` and, on CUDA (where events time it), ``peak_mb``.
    """
    if torch.device(device).type != 'cuda':
        start = time.perf_counter()
        function()
        return dict(seconds=time.perf_counter() - start)
    torch.cuda.reset_peak_memory_stats()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    function()
    end.record()
    torch.cuda.synchronize()
    return dict(
        seconds=start.elapsed_time(end) / 1e3, peak_mb=torch.cuda.max_memory_allocated() / 1e6
    )


def in_rounds(
    functions: dict[str, Callable[[], None]], device: str, repeats: int, warmup: int
) -> dict[str, list[dict]]:
    """Time functions one after the other, round by round.

    A machine's speed drifts by more than what is to be told apart. Within a round
    all meet the same machine, so that ratios are taken there.

    Returns:
        dict: Of each name a row of :func:`timed` a round, warm-up left out.
    """
    rows: dict[str, list[dict]] = {name: [] for name in functions}
    for round_ in range(warmup + repeats):
        for name, function in functions.items():
            row = timed(function, device)
            if round_ >= warmup:
                rows[name].append(row)
    return rows


def seconds(rows: list[dict]) -> list[float]:
    """Return the seconds of each round."""
    return [row['seconds'] for row in rows]


def middle(rows: list[dict]) -> dict:
    """Return the median seconds and, on CUDA, the peak memory of rounds."""
    return {**rows[-1], 'seconds': statistics.median(seconds(rows))}


def ratio(these: Sequence[float], those: Sequence[float]) -> float:
    """Return the median over rounds of a ratio."""
    return statistics.median(a / b for a, b in zip(these, those, strict=True))


def matmul_rate(device: str, rows: int, width: int, dtype: torch.dtype, repeats: int = 15) -> float:
    """Measure a ``[rows, width] x [width, width]`` product: the best MAC/s."""
    a = torch.randn(rows, width, dtype=dtype, device=device)
    b = torch.randn(width, width, dtype=dtype, device=device)
    runs = [timed(lambda: a @ b, device)['seconds'] for _ in range(repeats + 1)]
    return rows * width * width / min(runs[1:])


def machine(device: str) -> str:
    """Name the machine, the software and the day."""
    name = platform.processor()
    if torch.device(device).type == 'cuda':
        name = torch.cuda.get_device_name()
    else:
        info = Path('/proc/cpuinfo')
        text = info.read_text() if info.is_file() else ''
        # Virtual machines often hide the model's name, never its numbers.
        values = {}
        for line in text.splitlines():
            key, _, value = line.partition(':')
            values.setdefault(key.strip(), value.strip())
        if 'model name' in values:
            name = (
                f'{values["model name"]} (family {values.get("cpu family")}, '
                f'model {values.get("model")})'
            )
        flags = ' '.join(
            f
            for f in ('avx2', 'avx512f', 'avx512_bf16', 'amx_bf16')
            if f' {f} ' in text.replace('\n', ' ')
        )
        name = f'{name}, {flags}'
    return f'{name}; {torch.get_num_threads()} threads; torch {torch.__version__}; {date.today()}'


def report(
    title: str,
    rows: list[dict],
    columns: Sequence[str],
    args: argparse.Namespace,
    notes: Sequence[str] | None = None,
):
    """Print rows as a table and write them as JSON."""
    where = machine(args.device)
    table = Table(title=f'{title}\n{where}')
    for column in columns:
        table.add_column(
            column, justify='left' if column == 'path' else 'right', no_wrap=column == 'path'
        )
    for row in rows:
        table.add_row(*(_show(row.get(c)) for c in columns))
    console = Console(width=140)
    console.print(table)
    for note in notes or ():
        console.print(note, highlight=False)
    if args.out:
        args.out.write_text(json.dumps(dict(title=title, machine=where, rows=rows), indent=1))


def _show(value) -> str:
    if value is None:
        return ''
    if isinstance(value, float):
        return f'{value:.4g}'
    return str(value)
