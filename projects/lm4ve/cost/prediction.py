"""How long a step takes next to another one, by what it computes and moves.

The model is a sum of three terms, of which each has a rate that is measured on the machine:
the multiply-accumulates of matrix products at the rate of their type; the bytes that products
and the optimizer read and write, weights above all, at the rate of the memory; and the bytes of
all other operations at the rate of a mixture of them, which is lower where results are large
(:data:`lm4ve.cost.counting.LARGE`). AdamW reads four and writes three numbers
a trained parameter.
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F

from lm4ve.cost.step import StepCost
from lm4ve.errors import UserError

#: Rows and widths of the products whose rate is measured: those of encoders and of blocks.
_PRODUCTS = ((3152, 384, 1536), (3152, 768, 768), (1024, 4096, 4096))
#: Other operations, as a layer of an encoder has them.
_OTHERS: tuple[Callable[[torch.Tensor], torch.Tensor], ...] = (
    lambda x: x + x,
    lambda x: x * x,
    lambda x: x.clone(),
    lambda x: x.t().contiguous(),
    lambda x: F.layer_norm(x, x.shape[-1:]),
    lambda x: F.layer_norm(x, x.shape[-1:]),
    lambda x: x.softmax(dim=-1),
    lambda x: F.gelu(x),
)
#: Shapes of what they take: 4 and 64 MB.
_SMALL, _LARGE = (1024, 1024), (16384, 1024)
#: Numbers that are copied to measure the memory: they fit no cache.
_COPIED = 1 << 26
#: Numbers that AdamW reads and writes for each trained parameter.
_ADAMW = 7


@dataclass(frozen=True)
class Rates:
    """What a machine does in a second.

    Attributes:
        macs (Mapping[str, float]): Multiply-accumulates by type, for example 'float32'.
        bytes, large (float): Bytes that other operations read and write, small and large ones.
        memory (float): Bytes that a copy reads and writes.
    """

    macs: Mapping[str, float]
    bytes: float
    large: float
    memory: float

    def __str__(self) -> str:
        macs = ', '.join(f'{v / 1e9:.1f} GMAC/s in {k}' for k, v in self.macs.items())
        moved = (self.bytes, self.large, self.memory)
        return f'{macs}; {", ".join(f"{v / 1e9:.1f}" for v in moved)} GB/s'

    def write(self, path: Path) -> None:
        """Write them as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1) + '\n')


def read_rates(path: str | Path) -> Rates:
    """Read the rates that :meth:`Rates.write` wrote.

    Raises:
        UserError: The file is missing or holds something else.
    """
    try:
        found = json.loads(Path(path).read_text())
        macs = {k: float(v) for k, v in found['macs'].items()}
        bytes_, large, memory = (float(found[k]) for k in ('bytes', 'large', 'memory'))
        return Rates(macs, bytes_, large, memory)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise UserError(
            f"--rates='{path}' cannot be read ({type(e).__name__}: {e}). Expected what "
            '--calibrate writes. Fix: run tools/analysis/cost.py CONFIG --calibrate FILE.'
        ) from e


def measure_rates(device: str, dtypes: Iterable[torch.dtype], repeats: int = 5) -> Rates:
    """Measure a machine for some seconds: a few products of each type, and other operations."""
    macs = {}
    for dtype in sorted(dtypes, key=str):
        seconds = 0.0  # of a multiply-accumulate in each of the products
        for rows, k, n in _PRODUCTS:
            a = torch.randn(rows, k, device=device).to(dtype)
            b = torch.randn(n, k, device=device).to(dtype)
            seconds += _best(partial(F.linear, a, b), device, repeats) / (rows * k * n)
        macs[str(dtype).removeprefix('torch.')] = len(_PRODUCTS) / seconds
    moved: list[float] = []
    for shape in (_SMALL, _LARGE):
        x = torch.randn(shape, device=device)
        seconds = sum(_best(partial(f, x), device, repeats) for f in _OTHERS)
        moved.append(2 * x.nbytes * len(_OTHERS) / seconds)
    y, z = torch.randn(2, _COPIED, device=device)
    copied = 2 * y.nbytes / _best(partial(z.copy_, y), device, repeats)
    return Rates(macs, moved[0], moved[1], copied)


def _best(function: Callable[[], object], device: str, repeats: int) -> float:
    """Return the seconds of the fastest run; on a CPU those of this process."""
    found = []
    for _ in range(repeats + 1):
        if torch.device(device).type == 'cuda':
            torch.cuda.synchronize()
            start = time.perf_counter()
            function()
            torch.cuda.synchronize()
            found.append(time.perf_counter() - start)
        else:
            start = time.process_time()
            function()
            found.append((time.process_time() - start) / torch.get_num_threads())
    return min(found[1:])


def predict_seconds(cost: StepCost, rates: Rates | None = None) -> float:
    """Predict how long a step takes.

    Args:
        cost (StepCost): What was counted.
        rates (Rates, optional): What the machine does in a second. Without them,
            the number of multiply-accumulates is returned, so that a ratio is one of operations.

    Raises:
        UserError: The rates lack a type that the model computes in.
    """
    if rates is None:
        return float(cost.counts.total_macs())
    seconds = 0.0
    for kind, macs in cost.counts.macs.items():
        name = str(kind.dtype).removeprefix('torch.')
        if name not in rates.macs:
            raise UserError(
                f'The rates know {", ".join(rates.macs)}, but the step computes in {name}. Fix: '
                'measure them again with --calibrate and this config.'
            )
        seconds += macs / rates.macs[name]
    counts = cost.counts
    streamed = sum(counts.product_bytes.values()) + 4 * _ADAMW * cost.trainable
    seconds += streamed / rates.memory
    seconds += sum(counts.other_bytes.values()) / rates.bytes
    return seconds + sum(counts.large_bytes.values()) / rates.large
