"""MMEngine's root registry of models has no place to name modules for later.

True of MMEngine 0.10.7 (no upstream issue): a child registry takes ``locations``, to
be imported at its first look-up, the root does not, so that a package that registers
in the root has to be imported as a whole, which costs seconds. May go once
``mmengine.registry`` offers ``Registry.add_location`` or the like.
"""

import importlib
from types import ModuleType

MODULES = ('lm4ve.blocks', 'lm4ve.necks')


def is_needed(root: ModuleType) -> bool:
    """Return whether the private list is still the only way."""
    return hasattr(root.MODELS, '_locations')


def repair(root: ModuleType) -> None:
    """Let the root's first look-up import blocks and necks.

    Args:
        root (ModuleType): ``mmengine.registry.root``.
    """
    models = root.MODELS
    if is_needed(root) and not models._imported:
        models._locations.extend(MODULES)
    else:
        for module in MODULES:
            importlib.import_module(module)
