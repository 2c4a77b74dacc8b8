"""Estimates the seconds of a training step and the hours of a training on a GPU.

A GPU's data sheet says how long each operator takes (:mod:`lm4ve.cost.devices`). Input pipelines,
validation, checkpoints and anything outside torch's operators are not counted.
"""

from dataclasses import dataclass

import torch
from mmengine.config import Config

from lm4ve.cost.devices import GPUS, Gpu
from lm4ve.cost.length import Length, length_of_training
from lm4ve.cost.step import StepCost, cost_of_step
from lm4ve.errors import check


@dataclass(frozen=True)
class StepSeconds:
    """The estimated seconds of a training step.

    Attributes:
        forward, backward (float): What these passes take; the data's preprocessor is part of
            the forward pass.
        update (float): Of optimizer, loss scaler and average of weights.
        sending (float): Of the gradients' exchange among all GPUs.
    """

    forward: float
    backward: float
    update: float
    sending: float

    @property
    def overlapped(self) -> float:
        """The seconds of a step if gradients are sent during the backward pass, as by DDP."""
        return self.forward + max(self.backward, self.sending) + self.update

    @property
    def one_after_the_other(self) -> float:
        """The seconds of a step if gradients are sent after the backward pass."""
        return self.forward + self.backward + self.sending + self.update


@dataclass(frozen=True)
class TrainingEstimate:
    """What a training is estimated to need.

    Attributes:
        cost (StepCost): The counts of a step of one process.
        device (Gpu): What it runs on.
        gpus (int): Processes, each with a GPU.
        step (StepSeconds): The seconds of a step.
        length (Length): The steps of the training.
    """

    cost: StepCost
    device: Gpu
    gpus: int
    step: StepSeconds
    length: Length

    @property
    def step_seconds(self) -> float:
        """The seconds of a step, gradients sent during the backward pass."""
        return self.step.overlapped

    @property
    def hours(self) -> float:
        """The hours of the whole training."""
        return self.length.steps * self.step_seconds / 3600

    @property
    def gpu_hours(self) -> float:
        """The hours of all devices together."""
        return self.gpus * self.hours

    @property
    def memory(self) -> dict[str, int]:
        """What takes memory at the peak of a step -> bytes on each device."""
        memory = dict(self.cost.memory)
        if self.gpus > 1:
            # DDP copies gradients into buckets, which it keeps.
            memory['buckets of DDP'] = self.cost.gradients
        memory['reserved by the device'] = self.device.reserved
        return memory

    @property
    def peak(self) -> int:
        """The bytes that each device needs."""
        return sum(self.memory.values())

    @property
    def fits(self) -> bool:
        """Whether the device has that memory."""
        return self.peak <= self.device.memory


def estimate_training(
    cfg: Config,
    device: str | Gpu = 'a100',
    gpus: int = 1,
    batch: int | None = None,
    samples: int | None = None,
    cost: StepCost | None = None,
) -> TrainingEstimate:
    """Estimate memory and time of a config's training; nothing of it is measured.

    Args:
        cfg (Config): See :func:`lm4ve.cost.step.cost_of_step`.
        device (str | Gpu): A name of :data:`lm4ve.cost.devices.GPUS`, or a GPU.
        gpus (int): Processes, each with a GPU.
        batch (int, optional): Samples of one process in a step; default: the config's.
        samples (int, optional): Entries of the training data; default: see
            :func:`lm4ve.cost.length.length_of_training`.
        cost (StepCost, optional): The counts of a step, if they are there already.

    Raises:
        UserError: The GPU is unknown, or the size of the training data is.
    """
    check('gpus', gpus, least=1)
    if isinstance(device, str):
        check('device', device, choices=GPUS)
        device = GPUS[device]
    length = length_of_training(cfg, gpus, batch, samples)
    if cost is None:
        cost = cost_of_step(cfg, batch)
    step = seconds_of_step(cost, device, gpus, length.steps_of_update)
    return TrainingEstimate(cost, device, gpus, step, length)


def seconds_of_step(
    cost: StepCost, device: Gpu, gpus: int = 1, steps_of_update: int = 1
) -> StepSeconds:
    """Estimate the seconds of a training step.

    Args:
        cost (StepCost): The counts of one process.
        device (Gpu): What it runs on.
        gpus (int): Processes, each with a GPU.
        steps_of_update (int): Steps whose gradients are added up for one update.
    """
    seconds = dict(forward=0.0, backward=0.0, update=0.0)
    for operation, times in cost.calls.items():
        seconds[operation.phase] += times * device.seconds_of(operation)
    # The average reads both copies and writes one.
    seconds['update'] += 3 * cost.average / device.bandwidth
    if cost.amp is torch.float16:
        # The scaler reads gradients and writes them.
        seconds['update'] += 2 * cost.gradients / device.bandwidth
    sending = 0.0
    if gpus > 1:
        sending = cost.bytes_sent(gpus)['DDP'] / device.link
    return StepSeconds(
        forward=seconds['forward'],
        backward=seconds['backward'],
        update=seconds['update'] / steps_of_update,
        sending=sending / steps_of_update,
    )
