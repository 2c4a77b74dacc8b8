"""mmaction2's multimodal models do not import with current ``transformers``.

mmaction2 1.2.0 imports VindLU wherever transformers >= 4.28 is installed, and
VindLU takes functions from ``transformers.modeling_utils`` that are no longer
there, so that ``import mmaction.models`` fails. Its own switch for machines
without ``transformers`` leaves those models out.
"""
import importlib.util
import re
from pathlib import Path

from mmaction.utils import dependency

_MODULE = 'transformers.modeling_utils'
_USED = re.compile(rf'from {re.escape(_MODULE)} import \(?([\w\s,]+)\)?')


def leave_out_multimodal() -> None:
    """Switch VindLU off if it names what this ``transformers`` has not."""
    if getattr(dependency, 'WITH_MULTIMODAL', False) and _missing_names():
        dependency.WITH_MULTIMODAL = False


def _missing_names() -> list:
    """Names that VindLU imports and ``transformers`` does not mention.

    Both are read as text: importing either would cost seconds.
    """
    vindlu = Path(dependency.__file__).parents[1].joinpath(
        'models/multimodal/vindlu/modeling_bert.py')
    spec = importlib.util.find_spec(_MODULE)
    if not vindlu.is_file() or spec is None or not spec.origin:
        return []
    used = _USED.search(vindlu.read_text(encoding='utf-8'))
    there = set(
        re.findall(r'\w+', Path(spec.origin).read_text(encoding='utf-8')))
    return [n for n in re.findall(r'\w+', used[1] if used else '')
            if n not in there]
