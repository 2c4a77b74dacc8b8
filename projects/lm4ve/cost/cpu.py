"""Measures how long one core of this machine takes for each operator.

Two small networks, a narrow and a wide one, train for a few steps under a recorder that
times each operator. Their CPU time on one thread counts, so that other processes disturb
it little.
"""

import os
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lm4ve.cost.operations import Operation, Recorder

#: Steps of each network: the median of each operator's counts.
ROUNDS = 3
#: Samples, tokens and channels of the narrow and of the wide network. (Sizes of a demo,
#: and of a ViT-S.)
SIZES = ((16, 17, 64), (4, 197, 384))
#: An operator with less work, in bytes or products, is measured by its call alone.
LEAST_WORK = 200_000
#: The operators that stand for those that the networks do not have.
PRODUCT = 'mm'
OTHER = 'add'


@dataclass(frozen=True)
class Curve:
    """The seconds of an operator by its work.

    Attributes:
        work (list[float]): Multiply-accumulates of products, bytes moved of others;
            ascending.
        seconds (list[float]): How long one call with that work takes.
    """

    work: list[float]
    seconds: list[float]

    def at(self, work: float) -> float:
        """Return the seconds for some work.

        Between two measurements both are interpolated on logarithmic scales; outside
        of them, seconds grow with the work.
        """
        if work <= self.work[0]:
            return self.seconds[0] * work / self.work[0]
        if work >= self.work[-1]:
            return self.seconds[-1] * work / self.work[-1]
        at = np.interp(np.log(work), np.log(self.work), np.log(self.seconds))
        return float(np.exp(at))


@dataclass(frozen=True)
class CpuRates:
    """The speed of one core.

    Attributes:
        curves (Mapping[str, Curve]): Operator -> seconds by work, in fp32.
        times_fp32 (Mapping[torch.dtype, float]): Dtype of products -> how many times
            as long as in fp32 they take.
        call (float): The least seconds of an operator.
        memory (int): Bytes of the machine's memory.
    """

    curves: Mapping[str, Curve]
    times_fp32: Mapping[torch.dtype, float]
    call: float
    memory: int

    def seconds_of(self, operation: Operation) -> float:
        """Return the seconds of one call of an operator."""
        work = work_of(operation)
        curve = self.curves.get(operation.name)
        if curve is None:
            curve = self.curves[PRODUCT if operation.macs > 0 else OTHER]
        seconds = curve.at(work)
        if operation.macs > 0 and operation.dtype is not None:
            seconds *= self.times_fp32.get(operation.dtype, 1.0)
        return max(seconds, self.call)


def work_of(operation: Operation) -> int:
    """Return what an operator's seconds grow with: products if it has them, else bytes."""
    return operation.macs or operation.moved


def measure_cpu() -> CpuRates:
    """Measure one core of this machine, in about a second of its time."""
    with one_thread(), torch.random.fork_rng(devices=()):
        samples = [_timed_training(*size) for size in SIZES]
        times_fp32 = _times_fp32()
    narrow = samples[0]
    return CpuRates(
        curves=_curves(samples),
        times_fp32=times_fp32,
        call=min(seconds for _, seconds in narrow.values()),
        memory=os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES'),
    )


def _curves(samples: list[dict[str, tuple[float, float]]]) -> dict[str, Curve]:
    """Return the curves of operators through the points of several networks.

    Operators that had little to do are left out.

    Args:
        samples (list[dict]): For each network, operator -> work and seconds.
    """
    points_of: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for sample in samples:
        for name, point in sample.items():
            points_of[name].append(point)
    curves = {}
    for name in sorted(points_of):
        points = sorted(points_of[name])
        works = [work for work, _ in points]
        seconds = [time for _, time in points]
        most_work = works[-1]
        if most_work >= LEAST_WORK:
            curves[name] = Curve(works, seconds)
    return curves


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread inside the context."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class _Timer(Recorder):
    """A recorder that times each operator.

    Attributes:
        seconds (dict): Operation -> CPU seconds of each call.
    """

    def __init__(self) -> None:
        super().__init__(resident=())
        self.seconds: dict[Operation, list[float]] = defaultdict(list)
        self._last = 0.0

    def run(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run an operator and keep its seconds until it is recorded."""
        start = time.thread_time()
        out = func(*args, **kwargs)
        self._last = time.thread_time() - start
        return out

    def record(self, operation: Operation) -> None:
        """Keep an operator's seconds."""
        self.seconds[operation].append(self._last)


class _Network(nn.Module):
    """The layers of visual encoders, of each kind one.

    Args:
        tokens (int): Tokens of a sample.
        width (int): Their channels.
    """

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, width, 3, stride=2, padding=1)
        self.norm_of_map = nn.BatchNorm2d(width)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.zeros(1, tokens, width))
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width, bias=False)
        self.rise = nn.Linear(width, 4 * width)
        self.fall = nn.Linear(4 * width, width)
        self.head = nn.Linear(width, 10)

    def forward(self, images: Tensor, tokens: Tensor) -> Tensor:
        """Return a loss.

        Args:
            images (Tensor): ``[B, 3, S, S]``.
            tokens (Tensor): ``[B, N, C]``.
        """
        features = F.relu(self.norm_of_map(self.convolution(images)))
        features = F.max_pool2d(features, 2).flatten(2).amax(-1)
        batch, count, width = tokens.shape
        class_token = self.class_token.expand(batch, -1, -1)
        x = torch.cat([class_token, tokens[:, 1:]], dim=1) + self.position
        qkv = self.qkv(self.norm(x)).reshape(batch, count, 3, -1, 32)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        x = x + F.dropout(self.out(attended.reshape(batch, count, width)), 0.1)
        x = x + self.fall(F.gelu(self.rise(self.norm(x))))
        scores = torch.bmm(x, x.transpose(1, 2)).softmax(-1)
        x = torch.bmm(scores, x)
        nearest = scores.topk(8, dim=-1).indices[:, 0]
        near = x[torch.arange(batch)[:, None], nearest].mean(1)
        classes = torch.zeros(batch, dtype=torch.int64)
        return F.cross_entropy(self.head(x[:, 0] + near + features), classes)


def _timed_training(
    batch: int, tokens: int, width: int
) -> dict[str, tuple[float, float]]:
    """Train a network for some steps.

    Args:
        batch, tokens, width (int): Samples, their tokens, and channels.

    Returns:
        dict: Operator -> mean work and mean CPU seconds of its calls.
    """
    network = _Network(tokens, width)
    optimizer = torch.optim.AdamW(network.parameters())
    images = torch.randn(batch, 3, 56, 56)
    inputs = torch.randn(batch, tokens, width)
    timer = _Timer()
    for number in range(1 + ROUNDS):
        if number == 1:
            timer.seconds.clear()  # the first step warms up
        with timer:
            optimizer.zero_grad()
            network(images, inputs).backward()
            optimizer.step()
    return _means(timer.seconds)


def _means(
    seconds_of: Mapping[Operation, list[float]],
) -> dict[str, tuple[float, float]]:
    """Return operator -> mean work and mean seconds of a call; medians over the calls."""
    works: dict[str, list[int]] = defaultdict(list)
    seconds: dict[str, list[float]] = defaultdict(list)
    for operation, measured in seconds_of.items():
        calls = len(measured)
        works[operation.name] += [work_of(operation)] * calls
        seconds[operation.name] += [statistics.median(measured)] * calls
    means = {}
    for name, work in works.items():
        means[name] = (statistics.fmean(work), statistics.fmean(seconds[name]))
    return means


def _times_fp32() -> dict[torch.dtype, float]:
    """Return dtype -> how many times as long as in fp32 a linear layer takes."""
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        tokens = torch.randn(256, 384, dtype=dtype)
        weight = torch.randn(384, 384, dtype=dtype)
        rounds = []
        for _ in range(1 + ROUNDS):
            start = time.thread_time()
            F.linear(tokens, weight)
            rounds.append(time.thread_time() - start)
        seconds[dtype] = statistics.median(rounds[1:])
    return {dtype: each / seconds[torch.float32] for dtype, each in seconds.items()}
