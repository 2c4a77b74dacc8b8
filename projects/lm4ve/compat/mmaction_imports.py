"""Make ``mmaction.models`` importable from mmaction2's wheel, which lacks a folder."""

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

_DRN = 'mmaction.models.localizers.drn'


def import_without_missing_parts(registry: Any) -> None:
    """Let ``import mmaction.models`` succeed without DRN and VindLU, which fail at import.

    A missing DRN is replaced by an empty class, and mmaction2's own switch for machines
    without ``transformers`` leaves VindLU out.

    Broken in mmaction2 1.2.0: its wheel lacks the folder
    ``mmaction/models/localizers/drn`` (mmaction2 issue 2714, open), and VindLU imports
    functions that transformers >= 4.48 lacks (not reported upstream). May go once the
    lowest supported wheel has the folder and VindLU imports.

    Args:
        registry (ModuleType): ``mmaction.registry``, which is imported before the
            models. Its path leads to the package's folder.
    """
    package = Path(registry.__file__).parent
    if not (package / 'models/localizers/drn').is_dir():
        module: Any = ModuleType(f'{_DRN}.drn')
        module.DRN = type('DRN', (), {})
        sys.modules[_DRN] = ModuleType(_DRN)
        sys.modules[f'{_DRN}.drn'] = module
    dependency: Any = import_module('mmaction.utils.dependency')
    dependency.WITH_MULTIMODAL = False
