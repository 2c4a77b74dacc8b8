"""The rooms that are mutated."""

#: Room -> its files below ``projects/lm4ve``, and the folders of its tests.
ROOMS = {
    'blocks': (('blocks/*',), ('tests/blocks',)),
    'necks': (('necks/*',), ('tests/necks',)),
    'runner': (('runner/*',), ('tests/runner',)),
    'data': (('data/*',), ('tests/data', 'tests/tasks/*')),
    'metrics': (('tasks/*/metrics.py', 'tasks/*/metrics/*'), ('tests/tasks/*',)),
}
