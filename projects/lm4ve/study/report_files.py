"""The files of a report, of studies of both kinds: those it is made from, and the rest.

Labels are packed in them: base64 of a byte a sample, of two where there are more classes.
255, or the largest number of two bytes, stands for scores that were not finite.
"""

import base64
from pathlib import Path
from typing import Any

import numpy as np

from lm4ve.errors import require
from lm4ve.files import read_json, write_json

#: Written before the first job, and not a part of the report.
PLAN = 'plan.json'
STUDY = 'study.json'
PICTURES = 'pictures.csv'
RESULTS = 'results.csv'
TUNING = 'tuning.csv'
TIMINGS = 'timings.csv'
SENTENCE = 'sentence.txt'
PAGE = 'report.html'
#: What a report consists of.
FILES = (
    PAGE,
    STUDY,
    PICTURES,
    RESULTS,
    TUNING,
    TIMINGS,
    'comparisons.csv',
    'classes.csv',
    'confusions.csv',
    'table.md',
    'plot.png',
    SENTENCE,
)


def write_facts(facts: dict[str, Any], folder: Path) -> None:
    """Write study.json, before the tables, of which results.csv comes last.

    Until then the folder holds no study: tables of an earlier run under these facts would
    be a wrong report. The earlier sentence, which the facts have among their looks, goes.

    Args:
        facts (dict[str, Any]): What was compared and how, with their 'format'.
        folder (Path): The folder.
    """
    (folder / RESULTS).unlink(missing_ok=True)
    write_json(facts, folder / STUDY)
    (folder / SENTENCE).unlink(missing_ok=True)


def read_facts(folder: Path, version: int) -> dict[str, Any]:
    """Return what :func:`write_facts` wrote.

    Args:
        folder (Path): The folder.
        version (int): The 'format' that is understood.

    Raises:
        UserError: There is no study in the folder, or one of another version.
    """
    facts = read_json(folder / STUDY)
    is_known = isinstance(facts, dict) and facts.get('format') == version
    require(
        is_known and (folder / RESULTS).is_file(),
        f"'{folder}' has no study of this version. Fix: run it again.",
    )
    known: dict[str, Any] = facts
    return known


def pack(labels: np.ndarray, classes: int) -> str:
    """Pack labels, of which -1 stands for none, into text; see the module."""
    dtype = _dtype_for(classes)
    return base64.b64encode(labels.astype(dtype).tobytes()).decode()


def unpack(text: str, classes: int) -> np.ndarray:
    """Return the labels that :func:`pack` packed, int64 ``[n]``."""
    dtype = _dtype_for(classes)
    # write_csv puts an apostrophe before what a spreadsheet would take for a formula.
    content = base64.b64decode(text.removeprefix("'"))
    labels = np.frombuffer(content, dtype).astype(np.int64)
    labels[labels == np.iinfo(dtype).max] = -1
    return labels


def _dtype_for(classes: int) -> np.dtype:
    """Return the type that holds so many labels and one more."""
    return np.dtype('u1') if classes < 255 else np.dtype('<u2')
