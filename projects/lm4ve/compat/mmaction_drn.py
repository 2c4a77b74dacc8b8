"""mmaction2's wheel lacks a folder that its own ``__init__`` imports.

Broken in mmaction2 1.2.0 (mmaction2 issue 2714, open):
``mmaction/models/localizers/drn`` was left out of the package, so that
``import mmaction.models`` fails. May go once the lowest supported wheel has the folder.
"""

import sys
from pathlib import Path
from types import ModuleType

_PACKAGE = 'mmaction.models.localizers.drn'


class DRN:
    """Stands in for mmaction2's temporal grounding model."""

    def __init__(self, *args, **kwargs) -> None:
        raise ImportError(
            "mmaction2's wheel lacks its DRN model (mmaction2 issue 2714). "
            'Fix: install mmaction2 from its source.'
        )


def is_needed(registry: ModuleType) -> bool:
    """Return whether the installed mmaction2 lacks the folder."""
    root = Path(registry.__file__).parent
    return not (root / 'models' / 'localizers' / 'drn').is_dir()


def repair(registry: ModuleType) -> None:
    """Give ``import mmaction.models`` the module that is missing.

    Args:
        registry (ModuleType): ``mmaction.registry``, which its models import first.
    """
    if is_needed(registry):
        for name in (_PACKAGE, f'{_PACKAGE}.drn'):
            sys.modules[name] = ModuleType(name)
        sys.modules[name].DRN = DRN
