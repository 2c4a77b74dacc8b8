"""Test pictures that a block gets right and a probe does not, or the other way round.

A page shows a few of each. They illustrate the answer and are no evidence: the ones
where the two differ most are chosen.
"""

import base64
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lm4ve.data.image_files import DamagedPictureError
from lm4ve.study.heads.mistakes import most_frequent, only_right_in
from lm4ve.study.heads.study import StudyResults
from lm4ve.study.pictures.data import ProbeData
from lm4ve.study.pictures.items import Item, file_of

#: Pictures on a page, of both kinds together.
MOST = 12
#: The longer side of a thumbnail, in pixels: twice its size on the page.
_SIDE = 256


@dataclass(frozen=True)
class Example:
    """A test picture with what two heads say about it.

    Attributes:
        source (str): A data URI of a small JPEG; empty if the picture can no longer be
            read.
        path (str): The picture's file, or its place in a data set.
        label (str): Its class.
        predictions (tuple[str, ...]): Of each head, as in 'linear: cat (7 of 8 seeds)'.
    """

    source: str
    path: str
    label: str
    predictions: tuple[str, ...]


@dataclass(frozen=True)
class OneSided:
    """Test pictures that one of two heads alone gets right, and some of them as examples.

    Attributes:
        right (str): The head that is right in most seeds.
        wrong (str): The head that is not.
        count (int): How many there are among the test pictures.
        shown (list[Example]): Those that a page shows.
    """

    right: str
    wrong: str
    count: int
    shown: list[Example]


def has_pictures(data: ProbeData) -> bool:
    """Return whether data have items, and these are pictures, not clips or clouds."""
    if not data.items:
        return False
    item = data.items[0]
    if isinstance(item, Path):
        return True
    info = item.info()
    return 'img' in info or 'img_path' in info


def choose_examples(
    pictures: ProbeData, results: StudyResults, names: Sequence[str]
) -> list[OneSided]:
    """Return the pictures that only the first head gets right, and those of only the second.

    Args:
        pictures (ProbeData): The data with its items, which are pictures. Its splits are
            those of the features: pictures that could not be decoded are in none.
        results (StudyResults): The results of all heads.
        names (Sequence[str]): Two heads.
    """
    test = pictures.splits['test']
    labels = pictures.labels[test]
    first, second = names
    of_first = only_right_in(
        labels, results.predicted[first], results.predicted[second]
    )
    of_second = only_right_in(
        labels, results.predicted[second], results.predicted[first]
    )
    # Where one kind has few, the other gets their room.
    room_of_first = max(MOST // 2, MOST - len(of_second))
    shown_of_first = of_first[:room_of_first]
    shown_of_second = of_second[: MOST - len(shown_of_first)]

    groups = []
    for right, wrong, found, shown in (
        (first, second, of_first, shown_of_first),
        (second, first, of_second, shown_of_second),
    ):
        examples = [
            _make_example(pictures, results, names, place) for place in shown.tolist()
        ]
        groups.append(OneSided(right, wrong, len(found), examples))
    return groups


def _make_example(
    pictures: ProbeData, results: StudyResults, names: Sequence[str], place: int
) -> Example:
    """Describe one test picture.

    Args:
        pictures (ProbeData): The data.
        results (StudyResults): The results of all heads.
        names (Sequence[str]): The heads whose predictions are given.
        place (int): The picture's place among the test pictures.
    """
    index = int(pictures.splits['test'][place])
    predictions = []
    for name in names:
        predicted = results.predicted[name][:, place]
        predictions.append(
            f'{name}: {_describe_prediction(predicted, pictures.classes)}'
        )
    return Example(
        source=_encode_thumbnail(pictures, index),
        path=_name_item(pictures.items[index]),
        label=pictures.classes[pictures.labels[index]],
        predictions=tuple(predictions),
    )


def _describe_prediction(predicted: np.ndarray, classes: Sequence[str]) -> str:
    """Return what most seeds predict for a picture: 'cat (7 of 8 seeds)'.

    Args:
        predicted (np.ndarray): int64 ``[seeds]``; -1 where scores were not finite.
        classes (Sequence[str]): The names of the labels.
    """
    label, count = most_frequent(predicted)
    name = classes[label] if label >= 0 else 'no finite score'
    if len(predicted) == 1:
        return name
    return f'{name} ({count} of {len(predicted)} seeds)'


def _name_item(item: Item) -> str:
    """Return the path of a picture, or its number where a data set holds it in memory."""
    if isinstance(item, Path):
        path = str(item)
    else:
        path = file_of(item) or f'sample {item.index}'
    # A name may hold bytes that are no UTF-8, which a page cannot.
    return os.fsencode(path).decode(errors='replace')


def _encode_thumbnail(pictures: ProbeData, index: int) -> str:
    """Return a picture as the data URI of a small JPEG; '' if it can no longer be read."""
    try:
        picture = pictures[index]
    except (DamagedPictureError, OSError):
        # It could be read before the trainings. The report must not be lost by it.
        return ''
    picture.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, 'JPEG', quality=85)
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return f'data:image/jpeg;base64,{encoded}'
