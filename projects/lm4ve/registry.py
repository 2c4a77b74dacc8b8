"""The scope ``lm4ve``: children of MMEngine's root registries.

Blocks and necks are in the root itself, so that every OpenMMLab scope finds
them under their plain names. Everything else of ours is named with the scope,
for example ``type='lm4ve.DigitsDataset'``, and cannot collide with a host's.

A look-up imports the one module that registers the wanted name, so that nobody
needs the packages of a task that they do not use. Which module registers what
is said by the tasks (:class:`lm4ve.tasks.Task`) and by :data:`CORE` below.
"""

import importlib

from mmengine import registry as root
from mmengine.registry import Registry

from lm4ve.errors import UserError
from lm4ve.tasks import all_tasks

SCOPE = 'lm4ve'

#: Module -> the names that it registers, for what serves all tasks.
CORE = {
    'lm4ve.engine.block_in_use': ('BlockInUseHook',),
    'lm4ve.engine.neck_progress': ('NeckProgressHook',),
    'lm4ve.engine.checkpoint_hooks': ('AtomicCheckpointHook', 'PlainCheckpointHook'),
    'lm4ve.engine.ema': ('KeptEMAHook',),
    'lm4ve.engine.finite_loss': ('FiniteLossHook',),
    'lm4ve.engine.whole_checkpoint': ('WholeCheckpointHook',),
    'lm4ve.engine.loops': ('EpochLoop', 'IterLoop'),
    'lm4ve.activations.visualizer_hook': ('ActivationVisHook',),
}


class LazyRegistry(Registry):
    """A registry that imports the module of a name when it is first asked for."""

    def get(self, key: str):
        """Return what is registered under a name, or None.

        Raises:
            UserError: The name belongs to a task whose packages are missing.
        """
        name = key.removeprefix(f'{SCOPE}.')
        if name not in self.module_dict:
            _import_module_of(name)
        return super().get(key)


def _import_module_of(name: str) -> None:
    for module, names in CORE.items():
        if name in names:
            importlib.import_module(module)
    for task in all_tasks():
        try:
            if found := task.module_of(name):
                importlib.import_module(found)
        except ImportError as e:
            raise UserError(
                f"type='{SCOPE}.{name}' belongs to {task.title} and cannot be "
                f'imported: {e}. Fix: pip install "lm4ve[{task.extra}]".'
            ) from e


def _child(parent: Registry) -> LazyRegistry:
    # A location keeps MMEngine from looking for `lm4ve.utils`.
    return LazyRegistry(parent.name, parent=parent, scope=SCOPE, locations=['lm4ve.registry'])


MODELS = _child(root.MODELS)
DATASETS = _child(root.DATASETS)
DATA_SAMPLERS = _child(root.DATA_SAMPLERS)
TRANSFORMS = _child(root.TRANSFORMS)
METRICS = _child(root.METRICS)
FUNCTIONS = _child(root.FUNCTIONS)
HOOKS = _child(root.HOOKS)
LOOPS = _child(root.LOOPS)
OPTIM_WRAPPER_CONSTRUCTORS = _child(root.OPTIM_WRAPPER_CONSTRUCTORS)
VISUALIZERS = _child(root.VISUALIZERS)
