"""Measures how many samples a second the workers of the dataloader give."""

import time
from typing import Any

from torch.utils.data import DataLoader, RandomSampler

from lm4ve.dry_run.finding import Finding
from lm4ve.dry_run.plan import Plan
from lm4ve.runner.cores import count_cores

#: Seconds for which the loader is measured.
_SECONDS = 6.0
#: Samples of a batch while it is measured, so that there are several.
_BATCH = 16


def check_workers(plan: Plan) -> Finding:
    """Measure a worker; :mod:`lm4ve.dry_run.duration` compares all of them with the steps."""
    fields = plan.cfg.train_dataloader
    workers = int(fields.get('num_workers', 0))
    rate = measure_worker(plan.loaders['train'], fields)
    # More workers than cores share them.
    cores = max(1, count_cores() // plan.local_processes)
    plan.samples_of_worker = rate
    plan.samples_per_second = rate * max(1, min(workers, cores))
    text = f'{rate:,.0f} samples a second of a worker'
    if workers:
        text += f', {plan.samples_per_second:,.0f} of {workers} on {cores} cores'
    else:
        text += ', none beside the training'
    return Finding(text)


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
