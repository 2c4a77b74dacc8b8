"""Which repairs of other libraries act in a process."""

import inspect
import sys
from types import ModuleType
from typing import Any

from lm4ve import compat

#: Repairs that replace something else than their target, or nothing.
_NOT_SEEN = (
    'lm4ve.compat.mmaction_imports:import_without_missing_parts',
    'lm4ve.compat.mmcv_operators:import_without_operators',
    'lm4ve.compat.mmengine_blocking_copies:copy_without_waiting',
    'lm4ve.compat.mmpretrain_imports:import_layer_of_mmdet',
    'lm4ve.compat.mmpretrain_imports:import_without_extras',
    'lm4ve.compat.numpy_removed_names:restore_removed_names',
)


def visible_repairs() -> list[compat.Repair]:
    """Return the repairs that wait for a class of ours, of libraries that are imported."""
    found = []
    for repair in compat.REPAIRS:
        is_seen = repair.function not in _NOT_SEEN
        if repair.waits and is_seen and repair.trigger in sys.modules:
            found.append(repair)
    return found


def acts(repair: compat.Repair) -> bool:
    """Return whether what a repair replaces is ours."""
    holder = compat.holder_of(repair.target)
    name = repair.target.rpartition(':')[2].rpartition('.')[2]
    if repair.target == 'mmpretrain.apis.model:get_model':
        # It calls this function of MMEngine's, in which the repair checks what it loads.
        holder, name = sys.modules['mmengine.runner'], 'load_checkpoint'
    return _is_ours(inspect.getattr_static(holder, name))


def _is_ours(value: Any) -> bool:
    if isinstance(value, ModuleType):
        is_own = type(value).__module__.startswith('lm4ve')
        return is_own or value is not sys.modules.get(value.__name__)
    wrapper = getattr(value, '_self_wrapper', value)
    wrapper = getattr(wrapper, '__func__', wrapper)
    return str(getattr(wrapper, '__module__', '')).startswith('lm4ve')
