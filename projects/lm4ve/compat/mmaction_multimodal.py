"""mmaction2's multimodal models do not import with current ``transformers``.

Broken in mmaction2 1.2.0 (not reported upstream) with transformers >= 4.48: VindLU is
imported wherever transformers >= 4.28 is installed, and takes functions from
``transformers.modeling_utils`` that are no longer there, so that
``import mmaction.models`` fails. mmaction2's own switch for machines without
``transformers`` leaves those models out. May go once VindLU imports.
"""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

_MODULE = 'transformers.modeling_utils'
_USED = re.compile(rf'from {re.escape(_MODULE)} import \(?([\w\s,]+)\)?')


def is_needed(registry: ModuleType) -> bool:
    """Return whether VindLU imports names that this ``transformers`` has not.

    Both are read as text: importing either would cost seconds.
    """
    root = Path(registry.__file__).parent
    return lacks_names(root / 'models/multimodal/vindlu/modeling_bert.py')


def lacks_names(file: Path) -> bool:
    """Return whether a file takes names from ``transformers`` that are not there."""
    spec = importlib.util.find_spec(_MODULE)
    if not file.is_file() or spec is None or not spec.origin:
        return False
    used = _USED.search(file.read_text(encoding='utf-8'))
    there = set(re.findall(r'\w+', Path(spec.origin).read_text(encoding='utf-8')))
    return any(n not in there for n in re.findall(r'\w+', used[1] if used else ''))


def repair(registry: ModuleType) -> None:
    """Switch VindLU off if it cannot be imported.

    Args:
        registry (ModuleType): ``mmaction.registry``, which its models import first.
    """
    from mmaction.utils import dependency

    if getattr(dependency, 'WITH_MULTIMODAL', False) and is_needed(registry):
        dependency.WITH_MULTIMODAL = False
