"""Estimates the memory and the time of a step of the full batch on the device."""

from typing import Any

import torch
from mmengine.dist import get_world_size

from lm4ve.cost import cost_of_step, device_of, estimate_training
from lm4ve.cost.devices import GPUS, Device
from lm4ve.dry_run.finding import Finding, Verdict
from lm4ve.dry_run.plan import Plan
from lm4ve.errors import UserError
from lm4ve.tasks import task_of_config


def check_memory(plan: Plan) -> Finding:
    """Estimate memory and time of a step of the config's batch by :mod:`lm4ve.cost`.

    Raises:
        UserError: The device has less memory, or is unknown.
    """
    try:
        task_of_config(plan.cfg)
    except UserError:
        return Finding('no estimate: the model is of no task', Verdict.WARNING)
    name = plan.device or find_device()
    if name is None:
        return _compare_with_gpu(plan)
    device = device_of(name)
    cfg = plan.cfg
    if name != 'cpu':
        # Planned on a machine without a GPU, mixed precision is switched off in `plan.cfg`.
        cfg = plan.configure(for_this_machine=False)
    estimate = estimate_training(
        cfg,
        device,
        gpus=get_world_size(),
        samples=len(plan.loaders['train'].dataset),
    )
    plan.step_seconds = estimate.step_seconds
    title, memory = title_and_memory(device, plan)
    _refuse_too_much(estimate.peak, memory, title)
    return Finding(
        f'{_size(estimate.peak)} and {estimate.step_seconds:.3g} s a step of '
        f'{plan.cfg.train_dataloader.batch_size} on {title} with {_size(memory)} '
        '(estimate)'
    )


def find_device() -> str | None:
    """Return the name that :mod:`lm4ve.cost` has for this machine's device, or None."""
    if not torch.cuda.is_available():
        return 'cpu'
    title = torch.cuda.get_device_name().lower()
    for name in GPUS:
        if name in title:
            return name
    return None


def title_and_memory(device: Device, plan: Plan) -> tuple[str, int]:
    """Return the full name of a device, and the bytes that a process has of its memory.

    Of a GPU that is here the bytes are asked for: the table has one GPU of each name, and
    there are smaller ones and slices of them.
    """
    if device.name == 'cpu':
        return device.title, device.memory // plan.local_processes
    if plan.device is not None:
        return device.title, device.memory
    _, found = torch.cuda.mem_get_info()
    return torch.cuda.get_device_name(), min(device.memory, found)


def _compare_with_gpu(plan: Plan) -> Finding:
    """Compare the memory of a step with that of a GPU whose speed is not known.

    Raises:
        UserError: It has less.
    """
    cost: Any = cost_of_step(plan.cfg)
    title = torch.cuda.get_device_name()
    _, memory = torch.cuda.mem_get_info()
    _refuse_too_much(cost.peak, memory, title)
    return Finding(
        f'{_size(cost.peak)} on {title} with {_size(memory)} (estimate); its speed is not '
        'known: --dry-run-device'
    )


def _refuse_too_much(needed: int, memory: int, title: str) -> None:
    """Refuse a step that needs more memory than there is.

    Args:
        needed (int): Bytes that a step needs.
        memory (int): Bytes that a process has.
        title (str): What has them.

    Raises:
        UserError: It needs more.
    """
    if needed > memory:
        raise UserError(
            f'train_dataloader.batch_size: a step needs {_size(needed)} (estimate), and {title} '
            f'has {_size(memory)}. Fix: a smaller batch.'
        )


def _size(count: int) -> str:
    """Return a number of bytes as text."""
    return f'{count / 1e9:.2f} GB'
