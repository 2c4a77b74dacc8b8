"""The files of a report, of studies of both kinds: those it is made from, and the rest.

Labels are packed in them: base64 of a byte a sample, of two where there are more classes.
255, or the largest number of two bytes, stands for scores that were not finite.
"""

import base64

import numpy as np

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
