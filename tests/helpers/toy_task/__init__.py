"""A whole task in a few dozen lines: slow and fast waves, told apart from their samples.

It shows what a task consists of (docs/extend/add_a_task.md), and
``tests/tasks/test_toy_task.py`` trains, tests, visualizes and exports it.
"""

from lm4ve.tasks import register_task
from lm4ve.tasks.base.task import Task

TASK = Task(
    name='toy',
    title='wave classification',
    package=__name__,
    extra='toy',
    models=('tests.helpers.toy_task.models.WaveClassifier',),
    registers={
        'datasets': ('Waves',),
        'models': ('WaveClassifier',),
        'metrics': ('WaveAccuracy',),
    },
    input_noun='a wave',
    input_suffixes=('.wave',),
    input_options={'gain': 'factor for the samples of a .wave file'},
)
register_task('toy', __name__)
