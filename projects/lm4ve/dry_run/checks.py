"""The table of the checks of a dry run, in their order.

A check is a function of a :class:`lm4ve.dry_run.plan.Plan`. It returns a
:class:`lm4ve.dry_run.finding.Finding`, or raises what the training would raise. To add
one, write such a function into a file beside this one, and a row below.
"""

from collections.abc import Callable
from dataclasses import dataclass

from lm4ve.dry_run.config import check_config
from lm4ve.dry_run.data import check_data
from lm4ve.dry_run.disk import check_disk
from lm4ve.dry_run.duration import check_time
from lm4ve.dry_run.files import check_files
from lm4ve.dry_run.finding import Finding
from lm4ve.dry_run.inputs import check_inputs
from lm4ve.dry_run.memory import check_memory
from lm4ve.dry_run.plan import Plan
from lm4ve.dry_run.processes import check_processes
from lm4ve.dry_run.resume import check_resume
from lm4ve.dry_run.schedule import check_schedule
from lm4ve.dry_run.steps import check_steps
from lm4ve.dry_run.twins import check_twins
from lm4ve.dry_run.weights import check_weights
from lm4ve.dry_run.workers import check_workers


@dataclass(frozen=True)
class Check:
    """A row of the table.

    Attributes:
        name (str): What is checked.
        find (Callable): Checks it.
        needs (tuple[str, ...]): The checks without whose results it cannot run.
        together (bool): Whether the processes wait for one another in it, so that one that
            fails ends the dry run.
    """

    name: str
    find: Callable[[Plan], Finding]
    needs: tuple[str, ...] = ()
    together: bool = False


CHECKS = (
    Check('config', check_config),
    Check('processes', check_processes, needs=('config',), together=True),
    Check('resume', check_resume, needs=('config',)),
    # After it, since a checkpoint to continue from takes the place of `load_from`.
    Check('inputs', check_inputs, needs=('processes',)),
    Check('weights', check_weights, needs=('inputs',)),
    # Data sets share out their files over the processes while they are built.
    Check('data', check_data, needs=('inputs',), together=True),
    Check('files', check_files, needs=('data',)),
    Check('twins', check_twins, needs=('data',)),
    # Before anything computes: a process that forks its workers later may block them.
    Check('workers', check_workers, needs=('data',)),
    Check('schedule', check_schedule, needs=('data',)),
    Check('steps', check_steps, needs=('resume', 'weights', 'data'), together=True),
    Check('memory', check_memory, needs=('steps',)),
    Check('disk', check_disk, needs=('steps',)),
    Check('time', check_time, needs=('workers', 'memory')),
)
