"""Which modules the trainings of a grid need, to import them once and not in each."""

from lm4ve.study.trainings.grid import Grid
from lm4ve.study.trainings.identity import fresh_config

#: Modules below a host's package that register what configs name.
_HOST_MODULES = ('datasets', 'engine', 'evaluation', 'models', 'visualization')


def modules_of(grid: Grid) -> list[str]:
    """Return modules to import before trainings fork; some may not exist.

    They are that of trainings, and those that register the classes of the configs' hosts.
    """
    scopes = set()
    for path in {variant.config for variant in grid.variants}:
        scope = fresh_config(path).get('default_scope')
        if scope:
            scopes.add(scope)
    modules = ['lm4ve.study.trainings.training']
    for scope in sorted(scopes):
        modules += [f'{scope}.{module}' for module in _HOST_MODULES]
    return modules
