"""Finds pictures that show the same, and reports those with two labels, or in two splits.

They stay in the data. One picture under two labels changes no comparison, since all
variants see it, and large public data sets have such pairs.
"""

from concurrent.futures import ThreadPoolExecutor

import pandas as pd
from mmengine.logging import MMLogger

from lm4ve.data.twins import group_twins
from lm4ve.errors import listing
from lm4ve.study.pictures.items import name_of, pixels_of, small_version


def contents_of(rows: pd.DataFrame) -> pd.Series:
    """Return what is in each row's picture: its digest, or the first one of its twins.

    Twins are pictures that :mod:`lm4ve.data.twins` takes for the same.

    Args:
        rows (pd.DataFrame): With the columns 'item' and 'digest'.
    """
    different = rows.drop_duplicates('digest')
    items = different['item'].tolist()
    with ThreadPoolExecutor() as pool:
        small = list(pool.map(small_version, items))
    groups = group_twins(small, lambda place: pixels_of(items[place]))
    first_digest = different['digest'].groupby(groups).transform('min')
    content_of_digest = dict(zip(different['digest'], first_digest, strict=True))
    return rows['digest'].map(content_of_digest)


def warn_of_two_labels(rows: pd.DataFrame, name: str) -> None:
    """Log which equal pictures have several labels, each with its path.

    Args:
        rows (pd.DataFrame): With the columns 'item', 'label' and 'content'.
        name (str): What the user called the data.
    """
    contradictions = _describe_equal(rows, 'label')
    if not contradictions:
        return
    MMLogger.get_current_instance().warning(
        f"'{name}': {len(contradictions)} picture(s) have several labels: "
        f'{listing(contradictions)}. All of them count. Fix: remove the wrong ones.'
    )


def warn_of_shared_files(rows: pd.DataFrame, name: str) -> None:
    """Log which equal pictures stand in several splits, each with its path.

    Args:
        rows (pd.DataFrame): With the columns 'item', 'split' and 'content'.
        name (str): What the user called the data.
    """
    shared = _describe_equal(rows, 'split')
    if not shared:
        return
    MMLogger.get_current_instance().warning(
        f"'{name}': {len(shared)} equal pictures in several splits; scores are too high: "
        f'{listing(shared)}.'
    )


def _describe_equal(rows: pd.DataFrame, column: str) -> list[str]:
    """Return a text for each content whose rows differ in a column: one path of each value.

    Args:
        rows (pd.DataFrame): With the columns 'item' and 'content'.
        column (str): 'label' or 'split'.
    """
    first_of_value = rows.drop_duplicates(['content', column])
    differ = first_of_value[first_of_value.duplicated('content', keep=False)]
    texts = []
    for _, equal in differ.groupby('content', sort=False):
        names = [
            f'{name_of(item)} ({value})'
            for item, value in zip(equal['item'], equal[column], strict=True)
        ]
        texts.append(' = '.join(names))
    return texts
