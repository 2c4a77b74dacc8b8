"""mmaction2's multimodal models do not import with current ``transformers``.

mmaction2 1.2.0 imports VindLU wherever transformers >= 4.28 is installed, and
VindLU takes functions from ``transformers.modeling_utils`` that are no longer
there, so that ``import mmaction.models`` fails. Its own switch for machines
without ``transformers`` leaves those models out.
"""
import re
from pathlib import Path

import transformers.modeling_utils

_USED = re.compile(
    r'from transformers\.modeling_utils import \(?([\w\s,]+)\)?')


def leave_out_multimodal() -> None:
    """Switch VindLU off if it names what this ``transformers`` has not."""
    from mmaction.utils import dependency
    source = Path(dependency.__file__).parents[1].joinpath(
        'models/multimodal/vindlu/modeling_bert.py')
    if not getattr(dependency, 'WITH_MULTIMODAL', False) or (
            not source.is_file()):
        return
    used = _USED.search(source.read_text(encoding='utf-8'))
    names = re.findall(r'\w+', used[1]) if used else []
    if not all(hasattr(transformers.modeling_utils, n) for n in names):
        dependency.WITH_MULTIMODAL = False
