"""The tasks of the suite, one folder each. A new task is a folder and one more name here.

Tasks of projects beside lm4ve (:data:`lm4ve.zoo.PROJECTS`) add themselves when they are
imported.
"""

from lm4ve.tasks.base.task import (
    TASKS,
    Task,
    all_tasks,
    get_task,
    register_task,
    require_task,
    task_of_config,
    task_of_model,
)

for _name in ('image', 'video', 'pointcloud', 'motion', 'vqa', 'rooms'):
    register_task(_name, f'{__name__}.{_name}')

__all__ = [
    'TASKS',
    'Task',
    'all_tasks',
    'get_task',
    'register_task',
    'require_task',
    'task_of_config',
    'task_of_model',
]
