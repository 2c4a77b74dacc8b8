"""mmaction2 1.2.0's wheel lacks a folder that its own ``__init__`` imports.

``mmaction/models/localizers/drn`` was left out of the package (mmaction2 issue
2714, open), so that ``import mmaction.models`` fails. A finder at the end of the
list is asked only for modules that nobody else finds: where the folder exists,
it is never used.
"""
import importlib.abc
import importlib.machinery
import sys

_PACKAGE = 'mmaction.models.localizers.drn'
_MODULE = f'{_PACKAGE}.drn'


class DRN:
    """Stands in for mmaction2's temporal grounding model."""

    def __init__(self, *args, **kwargs) -> None:
        raise ImportError(
            "mmaction2's wheel lacks its DRN model (mmaction2 issue 2714). "
            'Fix: install mmaction2 from its source.')


class _DRNFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):

    def find_spec(self, fullname, path=None, target=None):
        if fullname in (_PACKAGE, _MODULE):
            return importlib.machinery.ModuleSpec(
                fullname, self, is_package=fullname == _PACKAGE)
        return None

    def create_module(self, spec):
        return None

    def exec_module(self, module) -> None:
        module.DRN = DRN


def stand_in_for_drn() -> None:
    """Give ``import mmaction.models`` the module that may be missing."""
    if not any(isinstance(f, _DRNFinder) for f in sys.meta_path):
        sys.meta_path.append(_DRNFinder())
