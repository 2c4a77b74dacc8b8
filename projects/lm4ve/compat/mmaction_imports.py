"""mmaction2's wheel does not import."""

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

_DRN = 'mmaction.models.localizers.drn'


def import_without_missing_parts(registry: Any) -> None:
    """``import mmaction.models`` fails at a folder and at functions that do not exist.

    Broken in mmaction2 1.2.0: its wheel lacks ``mmaction/models/localizers/drn``
    (mmaction2 issue 2714, open), and VindLU imports functions that transformers >= 4.48
    lacks (not reported upstream). mmaction2's own switch for machines without
    ``transformers`` leaves VindLU out. May go once the lowest supported wheel has the
    folder and VindLU imports.
    """
    folder = Path(registry.__file__).parent / 'models/localizers/drn'
    if not folder.is_dir():
        module: Any = ModuleType(f'{_DRN}.drn')
        module.DRN = type('DRN', (), {})
        sys.modules[_DRN] = ModuleType(_DRN)
        sys.modules[f'{_DRN}.drn'] = module
    dependency: Any = import_module('mmaction.utils.dependency')
    dependency.WITH_MULTIMODAL = False
