"""Says how long the training takes, and whether the device waits for data."""

import math
from datetime import timedelta

from lm4ve.dry_run.finding import Finding, warning_if
from lm4ve.dry_run.plan import Plan


def check_time(plan: Plan) -> Finding:
    """Multiply the seconds of a step, or of loading its batch, by the steps that are left.

    A step was timed where the device is here (:mod:`lm4ve.dry_run.steps`), and is
    estimated for another one (:mod:`lm4ve.dry_run.memory`).
    """
    step = plan.step_seconds
    if step == 0:
        return Finding('no step was timed')
    left = plan.iterations - plan.done
    fields = plan.cfg.train_dataloader
    loading = fields.batch_size / max(plan.samples_per_second, 1e-9)
    if fields.get('num_workers'):
        seconds = max(step, loading)
    else:
        # The process reads between two steps.
        seconds = step + loading
    origin = 'timed' if plan.device is None else 'estimate'
    text = (
        f'{timedelta(seconds=round(left * seconds))} for {left:,} iterations of '
        f'{seconds:.3g} s ({step:.3g} s on the device, {origin}; {loading:.3g} s to load '
        'a batch); validation left out'
    )
    problem = ''
    if loading > step:
        wanted = fields.batch_size / step
        needed = math.ceil(wanted / max(plan.samples_of_worker, 1e-9))
        problem = f'The device waits for data: {needed} workers and cores would do.'
    return warning_if(problem, text)
