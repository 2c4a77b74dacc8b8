"""How much memory a step needs: measured where the device is here, else estimated."""

import contextlib
import resource
from collections.abc import Iterator

import torch
from mmengine.dist import get_world_size

from lm4ve.cost import GPUS, estimate_training
from lm4ve.dry_run.finding import Finding, Verdict
from lm4ve.dry_run.plan import Plan
from lm4ve.errors import UserError, check
from lm4ve.tasks import task_of_config


def check_memory(plan: Plan) -> Finding:
    """Say what the steps have needed; for a GPU that is not here estimate memory and time.

    A step that did not fit where it ran has failed in the steps.

    Raises:
        UserError: A GPU that is not here has less memory, or is unknown.
    """
    if plan.device is not None:
        return _estimate_for(plan.device, plan)
    batch = plan.cfg.train_dataloader.batch_size
    if torch.cuda.is_available():
        used = torch.cuda.max_memory_reserved()
        _, there = torch.cuda.mem_get_info()
        return Finding(
            f'{_size(used)} for steps of {batch}, of the {_size(there)} of '
            f'{torch.cuda.get_device_name()}'
        )
    # The system counts in KiB.
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Finding(f'{_size(used)} for the process, with steps of {batch} on the CPU')


def _estimate_for(name: str, plan: Plan) -> Finding:
    """Estimate memory and time of a step on a GPU that is not here.

    Raises:
        UserError: It has less memory, or is unknown.
    """
    check('--dry-run-device', name, choices=GPUS)
    gpu = GPUS[name]
    try:
        task_of_config(plan.cfg)
    except UserError:
        return Finding('not estimated: the model is of no task', Verdict.WARNING)
    # Planned on a machine without a GPU, mixed precision is switched off in `plan.cfg`.
    estimate = estimate_training(
        plan.configure(for_this_machine=False),
        gpu,
        gpus=get_world_size(),
        samples=len(plan.loaders['train'].dataset),
    )
    batch = plan.cfg.train_dataloader.batch_size
    plan.step_seconds = estimate.step_seconds
    if not estimate.fits:
        raise UserError(
            f'train_dataloader.batch_size={batch}: a step needs {_size(estimate.peak)} '
            f'(estimate), and {gpu.title} has {_size(gpu.memory)}. Fix: a smaller batch, and '
            'optim_wrapper.accumulative_counts for the same update.'
        )
    return Finding(
        f'{_size(estimate.peak)} and {estimate.step_seconds:.3g} s a step of {batch} on '
        f'{gpu.title} with {_size(gpu.memory)} (estimate)'
    )


@contextlib.contextmanager
def naming_the_batch(batch: int) -> Iterator[None]:
    """Make an error that names the field of a step that does not fit into the memory.

    Args:
        batch (int): Samples of a step.

    Raises:
        UserError: A step does not fit.
    """
    device = 'this machine'
    if torch.cuda.is_available():
        device = torch.cuda.get_device_name()
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        raise UserError(
            f'train_dataloader.batch_size={batch}: a step does not fit into the memory of '
            f'{device}. Fix: a smaller batch, and optim_wrapper.accumulative_counts for the '
            'same update.'
        ) from error


def _is_out_of_memory(error: BaseException) -> bool:
    """Return whether an allocation has failed, on a GPU or a CPU."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    # Torch has no class of its own for a CPU's.
    return "can't allocate memory" in str(error)


def _size(count: int) -> str:
    """Return a number of bytes as text."""
    return f'{count / 1e9:.2f} GB'
