"""Checks whether the workers of the dataloader keep up, and estimates the time to the end."""

import time
from datetime import timedelta
from typing import Any

from torch.utils.data import DataLoader, RandomSampler

from lm4ve.dry_run.finding import Finding, warning_if
from lm4ve.dry_run.plan import Plan
from lm4ve.runner.cores import count_cores

#: Seconds for which the loader is measured.
_SECONDS = 6.0
#: Samples of a batch while it is measured, so that there are several.
_BATCH = 16


def check_workers(plan: Plan) -> Finding:
    """Measure a worker, and compare all workers with what the device computes."""
    fields = plan.cfg.train_dataloader
    workers = int(fields.get('num_workers', 0))
    rate = measure_worker(plan.loaders['train'], fields)
    # More workers than cores share them.
    cores = max(1, count_cores() // plan.local_processes)
    useful = max(1, min(workers, cores))
    plan.samples_per_second = rate * useful
    text = f'{rate:,.0f} samples a second of a worker'
    if workers:
        text += f', {plan.samples_per_second:,.0f} of {workers} on {cores} cores'
    else:
        text += ', none beside the training'
    if plan.step_seconds == 0:
        return Finding(text)
    wanted = fields.batch_size / plan.step_seconds
    text += f'; the device wants {wanted:,.0f} (estimate)'
    problem = ''
    if plan.samples_per_second < wanted:
        needed = round(wanted / rate + 0.5)
        problem = f'The device waits for data: {needed} workers and cores would do.'
    return warning_if(problem, text)


def measure_worker(loader: Any, fields: Any) -> float:
    """Return the samples a second that one worker of a dataloader gives, its start left out.

    Args:
        loader (DataLoader): Its data and its collate function are used.
        fields (ConfigDict): The loader's config.
    """
    size = min(fields.get('batch_size', 1), _BATCH)
    # With replacement, so that small data does not end before the measurement.
    drawn = RandomSampler(loader.dataset, replacement=True, num_samples=10**6)
    one_worker: DataLoader[Any] = DataLoader(
        loader.dataset,
        batch_size=size,
        sampler=drawn,
        num_workers=1,
        collate_fn=loader.collate_fn,
    )
    samples = 0
    began = 0.0
    for batch_number, _ in enumerate(one_worker):
        now = time.monotonic()
        if batch_number == 0:
            began = now
            continue
        samples += size
        if now - began > _SECONDS:
            break
    elapsed = time.monotonic() - began
    return samples / max(elapsed, 1e-9)


def check_time(plan: Plan) -> Finding:
    """Estimate how long the training takes, from the slower of device and workers."""
    if plan.step_seconds == 0:
        return Finding('no estimate of a step')
    left = plan.iterations - plan.done
    batch = plan.cfg.train_dataloader.batch_size
    loading = batch / max(plan.samples_per_second, 1e-9)
    slower = max(plan.step_seconds, loading)
    limit = 'the workers' if loading > plan.step_seconds else 'the device'
    if not plan.cfg.train_dataloader.get('num_workers'):
        # Without workers the process reads between two steps.
        slower = plan.step_seconds + loading
    whole = timedelta(seconds=round(left * slower))
    return Finding(
        f'{whole} for {left:,} iterations of {slower:.3g} s, as {limit} can; validation left '
        'out (estimate)'
    )
