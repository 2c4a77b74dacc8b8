"""What a device does in a second: products, bytes and calls.

The figures of GPUs are those of their data sheets, and the shares of them that kernels
reach are assumed, so whatever is computed from them is an estimate. Those of the CPU are
measured (:mod:`lm4ve.cost.cpu`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from lm4ve.cost.cpu import measure_cpu
from lm4ve.errors import check


@dataclass(frozen=True)
class Device:
    """The speed of a device.

    Attributes:
        name (str): Its name for ``--device``.
        title (str): Its full name.
        macs (Mapping[torch.dtype, float]): Multiply-accumulates a second of dense
            products, by dtype. Products in other dtypes run as fast as in fp32.
        share_of_macs (float): The share of them that products of usual sizes reach.
        bandwidth (float): Bytes a second between processor and memory.
        share_of_bandwidth (float): The share of it that elementwise kernels reach.
        call (float): The least seconds of an operator: a kernel's launch on a GPU, the
            dispatch on a CPU.
        calls_of_update (bool): Whether the optimizer pays ``call`` for each parameter;
            on GPUs torch updates all of them in a few kernels.
        link (float): Bytes a second that a device sends to the next one in a ring; 0
            if there is none.
        memory (int): Bytes of its memory.
        reserved (int): Bytes of it that context and libraries take.
        measured (bool): Whether its figures were measured on the spot.
        slower (Mapping[str, float]): Name of an operator -> how many numbers of its
            result it computes in a second, where bytes do not bound it.
    """

    name: str
    title: str
    macs: Mapping[torch.dtype, float]
    share_of_macs: float
    bandwidth: float
    share_of_bandwidth: float
    call: float
    calls_of_update: bool
    link: float
    memory: int
    reserved: int
    measured: bool = False
    slower: Mapping[str, float] = field(default_factory=dict)


def _gpu(
    name: str,
    title: str,
    *,
    fp32: float,
    half: float,
    int8: float,
    bandwidth: float,
    link: float,
    memory: float,
) -> Device:
    """Return a GPU by the figures of its data sheet.

    Args:
        name, title (str): See :class:`Device`.
        fp32, half, int8 (float): Tera-operations a second without sparsity, two for a
            multiply-accumulate: fp32 without TF32, 16 bits with fp32 accumulation, and
            int8.
        bandwidth, link, memory (float): GB a second of memory and of a link in one
            direction, and GB of memory.
    """
    return Device(
        name=name,
        title=title,
        macs={
            torch.float32: fp32 / 2 * 1e12,
            torch.float16: half / 2 * 1e12,
            torch.bfloat16: half / 2 * 1e12,
            torch.int8: int8 / 2 * 1e12,
        },
        share_of_macs=0.6,
        bandwidth=bandwidth * 1e9,
        share_of_bandwidth=0.8,
        call=6e-6,
        calls_of_update=False,
        link=link * 1e9,
        memory=int(memory * 1e9),
        reserved=int(1e9),
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
            int8=624,
            bandwidth=2039,
            link=300,
            memory=80,
        ),
        _gpu(
            'h100',
            'NVIDIA H100 SXM 80 GB',
            fp32=67,
            half=989.4,
            int8=1978.9,
            bandwidth=3350,
            link=450,
            memory=80,
        ),
        _gpu(
            '4090',
            'NVIDIA GeForce RTX 4090',
            fp32=82.6,
            half=165.2,
            int8=660.6,
            bandwidth=1008,
            link=32,
            memory=24,
        ),
    )
}
#: All names of devices.
DEVICES = (*GPUS, 'cpu')


def device_of(name: str) -> Device:
    """Return a device by its name; the CPU is measured first, which takes a second.

    Args:
        name (str): One of :data:`DEVICES`.

    Raises:
        UserError: There is no device of that name.
    """
    check('device', name, choices=DEVICES)
    if name in GPUS:
        return GPUS[name]
    rates = measure_cpu()
    return Device(
        name='cpu',
        title='one core of this CPU',
        macs=rates.macs,
        share_of_macs=1.0,
        bandwidth=rates.bandwidth,
        share_of_bandwidth=1.0,
        call=rates.call,
        calls_of_update=True,
        link=0.0,
        memory=rates.memory,
        reserved=0,
        measured=True,
        slower=rates.slower,
    )
