"""The rooms of the package, each of which imports only those before it."""

from lm4ve.tasks import TASKS

#: The rooms of the package's own tasks; others are those of projects.
OWN_TASKS = [f'tasks/{name}' for name in TASKS if TASKS[name].startswith('lm4ve.')]
#: From the bottom to the top. A unit is a folder or a file of the package; `tasks` is
#: what lies directly in that folder: the table of tasks and the protocol.
ORDER = [
    'version',
    'errors',
    'files',
    'zoo',
    'llm',
    'pixels',
    'compat',
    'openmmlab',
    'registry',
    'blocks',
    'necks',
    'runner',
    'data',
    'geometry',
    'demo_data',
    'draw',
    'text',
    'convert',
    'tasks/base',
    'tasks',
    *OWN_TASKS,
    'analysis',
    'release',
    'study',
    'cost',
    'dry_run',
    'apis',
    'commands',
    '__main__',
    '__init__',
]
