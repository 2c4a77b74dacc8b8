"""The tasks of the suite, one folder each, and the table that finds them."""

import importlib
from typing import Any

from lm4ve.errors import UserError
from lm4ve.tasks.task import Task

#: Name -> the package that declares ``TASK``. A new task is one more row.
TASKS = {
    'image': 'lm4ve.tasks.image',
    'video': 'lm4ve.tasks.video',
    'pointcloud': 'lm4ve.tasks.pointcloud',
    'motion': 'lm4ve.tasks.motion',
}


def get_task(name: str) -> Task:
    """Return the task of a name. Imports its declaration, nothing heavy."""
    return importlib.import_module(TASKS[name]).TASK


def all_tasks() -> list[Task]:
    """Return every task of the table, in its order."""
    return [get_task(name) for name in TASKS]


def task_of_model(model_class: Any) -> Task:
    """Return the task that a model class belongs to.

    Raises:
        UserError: It derives from no model of any task.
    """
    for task in all_tasks():
        if task.recognizes(model_class):
            return task
    known = '; '.join(f'{t.name}: {", ".join(t.models)}' for t in all_tasks())
    raise UserError(
        f'{getattr(model_class, "__name__", model_class)} belongs to no task of the '
        f'suite. Expected a class that derives from one of {known}. Fix: derive from '
        'one of them, or declare a task of your own (docs/extend/add_a_task.md).'
    )


__all__ = ['TASKS', 'Task', 'all_tasks', 'get_task', 'task_of_model']
