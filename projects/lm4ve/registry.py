"""The scope ``lm4ve``: children of MMEngine's root registries.

Blocks and necks are in the root itself, so that every OpenMMLab scope finds
them under their plain names. Everything else of ours is named with the scope,
for example ``type='lm4ve.DigitsDataset'``, and cannot collide with a host's.

A look-up of one of our names lets the repairs of other libraries act (:mod:`lm4ve.compat`)
and imports the one module that registers the name, so that nobody
needs the packages of a task that they do not use. The table of these modules is filled
by :mod:`lm4ve.tasks` for the tasks and by ``lm4ve/__init__.py`` for what serves all of
them.
"""

import importlib
from importlib.metadata import PackageNotFoundError, metadata

from mmengine import registry as root
from mmengine.registry import Registry

from lm4ve import compat
from lm4ve.errors import UserError

SCOPE = 'lm4ve'

#: Registered name -> the module that registers it, and the extra that installs its
#: packages.
PROVIDERS: dict[str, tuple[str, str]] = {}


def _extras() -> list[str]:
    """Return the extras of the installed lm4ve; none where it is not installed."""
    try:
        return metadata('lm4ve').get_all('Provides-Extra') or []
    except PackageNotFoundError:
        return []


class LazyRegistry(Registry):
    """A registry that imports the module of a name at the first look-up."""

    def get(self, key: str):
        """Return the class or function that is registered under a name, or None.

        If the table :data:`PROVIDERS` has the name, its module is imported first, which
        registers it.

        Args:
            key (str): A name, with or without the scope.

        Raises:
            UserError: The name belongs to a task whose packages are missing.
        """
        name = key.removeprefix(f'{SCOPE}.')
        if name in self.module_dict or name in PROVIDERS:
            compat.activate()
        if name not in self.module_dict and name in PROVIDERS:
            module, extra = PROVIDERS[name]
            try:
                importlib.import_module(module)
            except ImportError as e:
                fix = f'install what {module} needs, or correct its imports'
                if extra in _extras():
                    fix = f'pip install "lm4ve[{extra}]"'
                raise UserError(
                    f"type='{SCOPE}.{name}' cannot be imported: {e}. Fix: {fix}."
                ) from e
        return super().get(key)


def _child_of(parent: Registry) -> LazyRegistry:
    """Return the registry of our scope below one of MMEngine's."""
    # A location keeps MMEngine from looking for `lm4ve.utils`.
    return LazyRegistry(
        parent.name, parent=parent, scope=SCOPE, locations=['lm4ve.registry']
    )


MODELS = _child_of(root.MODELS)
DATASETS = _child_of(root.DATASETS)
DATA_SAMPLERS = _child_of(root.DATA_SAMPLERS)
TRANSFORMS = _child_of(root.TRANSFORMS)
METRICS = _child_of(root.METRICS)
FUNCTIONS = _child_of(root.FUNCTIONS)
HOOKS = _child_of(root.HOOKS)
LOOPS = _child_of(root.LOOPS)
OPTIM_WRAPPERS = _child_of(root.OPTIM_WRAPPERS)
PARAM_SCHEDULERS = _child_of(root.PARAM_SCHEDULERS)
OPTIM_WRAPPER_CONSTRUCTORS = _child_of(root.OPTIM_WRAPPER_CONSTRUCTORS)
VISUALIZERS = _child_of(root.VISUALIZERS)
WEIGHT_INITIALIZERS = _child_of(root.WEIGHT_INITIALIZERS)
