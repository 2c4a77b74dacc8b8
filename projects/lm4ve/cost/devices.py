"""What a GPU does in a second: products, bytes and calls.

The figures are those of data sheets, and the shares of them that kernels reach are
assumed, so whatever is computed from them is an estimate.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from lm4ve.cost.operations import Operation


@dataclass
class Gpu:
    """A GPU by its data sheet.

    An operator takes as long as the slowest of its products, its bytes and its call (a
    roofline: Williams, Waterman and Patterson, Communications of the ACM 52, 2009).

    Attributes:
        name (str): Its name for ``--device``.
        title (str): Its full name.
        macs (Mapping[torch.dtype, float]): Multiply-accumulates a second of dense
            products, by dtype. Products in other dtypes run as fast as in fp32.
        peak_bandwidth (float): Bytes a second between processor and memory.
        link (float): Bytes a second that a GPU sends to the next one in a ring.
        memory (int): Bytes of its memory.
        reserved (int): Bytes of it that context and libraries take.
        share_of_macs (float): The share of ``macs`` that products of usual sizes reach.
        share_of_bandwidth (float): The share of it that elementwise kernels reach.
        call (float): The least seconds of an operator, which are those of the launch of
            its kernel. The update has few kernels, as torch updates many parameters by
            one, and pays none.
    """

    name: str
    title: str
    macs: Mapping[torch.dtype, float]
    peak_bandwidth: float
    link: float
    memory: int
    reserved: int = int(1e9)
    share_of_macs: float = 0.6
    share_of_bandwidth: float = 0.8
    call: float = 6e-6

    @property
    def bandwidth(self) -> float:
        """Bytes a second that elementwise operators move."""
        return self.peak_bandwidth * self.share_of_bandwidth

    def seconds_of(self, operation: Operation) -> float:
        """Return the seconds of one call of an operator."""
        seconds = operation.moved / self.bandwidth
        if operation.macs > 0:
            peak = self.macs[torch.float32]
            if operation.dtype is not None:
                peak = self.macs.get(operation.dtype, peak)
            seconds = max(seconds, operation.macs / (peak * self.share_of_macs))
        if operation.phase == 'update':
            return seconds
        return max(seconds, self.call)


def _gpu(
    name: str,
    title: str,
    *,
    fp32: float,
    half: float,
    bandwidth: float,
    link: float,
    memory: float,
) -> Gpu:
    """Return a GPU by the figures of its data sheet.

    Args:
        name, title (str): See :class:`Gpu`.
        fp32, half (float): Tera-operations a second without sparsity, two for a
            multiply-accumulate: fp32 without TF32, and 16 bits with fp32 accumulation.
        bandwidth, link, memory (float): GB a second of memory and of a link in one
            direction, and GB of memory.
    """
    return Gpu(
        name=name,
        title=title,
        macs={
            torch.float32: fp32 / 2 * 1e12,
            torch.float16: half / 2 * 1e12,
            torch.bfloat16: half / 2 * 1e12,
        },
        peak_bandwidth=bandwidth * 1e9,
        link=link * 1e9,
        memory=int(memory * 1e9),
    )


#: Name -> GPU. Figures: NVIDIA's data sheets of A100 SXM 80 GB (2021) and H100 SXM
#: (2023), and the white paper of the Ada architecture (2022).
GPUS = {
    gpu.name: gpu
    for gpu in (
        _gpu(
            'a100',
            'NVIDIA A100 SXM 80 GB',
            fp32=19.5,
            half=312,
            bandwidth=2039,
            link=300,
            memory=80,
        ),
        _gpu(
            'h100',
            'NVIDIA H100 SXM 80 GB',
            fp32=67,
            half=989.4,
            bandwidth=3350,
            link=450,
            memory=80,
        ),
        _gpu(
            '4090',
            'NVIDIA GeForce RTX 4090',
            fp32=82.6,
            half=165.2,
            bandwidth=1008,
            link=32,
            memory=24,
        ),
    )
}
