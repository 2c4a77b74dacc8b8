"""mmaction2's wheel lacks a folder that its own ``__init__`` imports.

Broken in mmaction2 1.2.0 (mmaction2 issue 2714, open):
``mmaction/models/localizers/drn`` was left out of the package, so that
``import mmaction.models`` fails. A finder at the end of the list is asked only for
modules that nobody else finds: where the folder exists, it is never used. May go
once the lowest supported wheel has the folder.
"""

import importlib.abc
import importlib.machinery
import sys
from pathlib import Path
from types import ModuleType

_PACKAGE = 'mmaction.models.localizers.drn'
_MODULE = f'{_PACKAGE}.drn'


class DRN:
    """Stands in for mmaction2's temporal grounding model."""

    def __init__(self, *args, **kwargs) -> None:
        raise ImportError(
            "mmaction2's wheel lacks its DRN model (mmaction2 issue 2714). "
            'Fix: install mmaction2 from its source.'
        )


class _DRNFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, fullname, path=None, target=None):
        if fullname in (_PACKAGE, _MODULE):
            return importlib.machinery.ModuleSpec(fullname, self, is_package=fullname == _PACKAGE)
        return None

    def create_module(self, spec):
        return None

    def exec_module(self, module) -> None:
        module.DRN = DRN


def is_needed(registry: ModuleType) -> bool:
    """Return whether the installed mmaction2 lacks the folder."""
    root = Path(registry.__file__).parent
    return not (root / 'models' / 'localizers' / 'drn').is_dir()


def repair(registry: ModuleType) -> None:
    """Give ``import mmaction.models`` the module that is missing.

    Args:
        registry (ModuleType): ``mmaction.registry``, which its models import first.
    """
    sys.meta_path.append(_DRNFinder())
