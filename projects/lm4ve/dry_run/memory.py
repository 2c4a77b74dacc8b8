"""Counts the memory of a step of the full batch; for another GPU estimates its time, too."""

import os

import torch
from mmengine.dist import get_world_size

from lm4ve.cost import cost_of_step, estimate_training
from lm4ve.cost.devices import GPUS
from lm4ve.dry_run.finding import Finding, Verdict
from lm4ve.dry_run.plan import Plan
from lm4ve.errors import UserError, check
from lm4ve.tasks import task_of_config


def check_memory(plan: Plan) -> Finding:
    """Compare what a step of the config's batch needs with what the device has.

    Raises:
        UserError: The device has less memory, or is unknown.
    """
    try:
        task_of_config(plan.cfg)
    except UserError:
        return Finding('not counted: the model is of no task', Verdict.WARNING)
    if plan.device is not None:
        return _plan_for(plan.device, plan)
    on_cpu = not torch.cuda.is_available()
    needed = cost_of_step(plan.cfg, on_cpu=on_cpu).peak
    title, memory = title_and_memory(plan.local_processes)
    _refuse_too_much(needed, memory, title)
    batch = plan.cfg.train_dataloader.batch_size
    return Finding(
        f'{_size(needed)} (counted) for a step of {batch} on {title} with {_size(memory)}'
    )


def _plan_for(name: str, plan: Plan) -> Finding:
    """Estimate memory and time of a step on a GPU that is not here.

    Raises:
        UserError: It has less memory, or is unknown.
    """
    check('--dry-run-device', name, choices=GPUS)
    gpu = GPUS[name]
    # Planned on a machine without a GPU, mixed precision is switched off in `plan.cfg`.
    estimate = estimate_training(
        plan.configure(for_this_machine=False),
        gpu,
        gpus=get_world_size(),
        samples=len(plan.loaders['train'].dataset),
    )
    plan.step_seconds = estimate.step_seconds
    _refuse_too_much(estimate.peak, gpu.memory, gpu.title)
    return Finding(
        f'{_size(estimate.peak)} and {estimate.step_seconds:.3g} s a step of '
        f'{plan.cfg.train_dataloader.batch_size} on {gpu.title} with '
        f'{_size(gpu.memory)} (estimate)'
    )


def title_and_memory(processes: int) -> tuple[str, int]:
    """Return the name of the device that is here, and the bytes that a process has of it.

    Args:
        processes (int): How many the training has on this machine. They share its memory, and
            have a GPU each.
    """
    if torch.cuda.is_available():
        _, memory = torch.cuda.mem_get_info()
        return torch.cuda.get_device_name(), memory
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    return 'the CPU', memory // processes


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
            f'train_dataloader.batch_size: a step needs {_size(needed)} (counted), and {title} '
            f'has {_size(memory)}. Fix: a smaller batch.'
        )


def _size(count: int) -> str:
    """Return a number of bytes as text."""
    return f'{count / 1e9:.2f} GB'
