"""Reports files of equal content that contradict each other: two labels, or two splits.

They stay in the data. One picture under two labels changes no comparison, since all
variants see it, and large public data sets have such pairs.
"""

import pandas as pd
from mmengine.logging import MMLogger

from lm4ve.errors import listing
from lm4ve.probing.items import name_of


def warn_of_two_labels(rows: pd.DataFrame, name: str) -> None:
    """Log which equal files have several labels, each with its path.

    Args:
        rows (pd.DataFrame): With the columns 'item', 'label' and 'digest'.
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
    """Log which equal files stand in several splits, each with its path.

    Args:
        rows (pd.DataFrame): With the columns 'item', 'split' and 'digest'.
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
    """Return a text for each content whose files differ in a column: one path of each value.

    Args:
        rows (pd.DataFrame): With the columns 'item' and 'digest'.
        column (str): 'label' or 'split'.
    """
    first_of_value = rows.drop_duplicates(['digest', column])
    differ = first_of_value[first_of_value.duplicated('digest', keep=False)]
    texts = []
    for _, equal in differ.groupby('digest', sort=False):
        names = [
            f'{name_of(item)} ({value})'
            for item, value in zip(equal['item'], equal[column], strict=True)
        ]
        texts.append(' = '.join(names))
    return texts
