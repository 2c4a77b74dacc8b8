"""Fixes which items train, which choose the learning rate, and which are the test.

A picture that stands on both sides of a split makes a score too high. So pictures that
show the same, also in files of other formats, count as one where splits are made here.
"""

import warnings
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold

from lm4ve.errors import UserError, check, listing
from lm4ve.study.pictures.duplicates import warn_of_shared_files

#: A fifth of the data is for tests, a fifth for choosing the rate, the rest for
#: training.
FOLDS = 5


def assign_splits(
    rows: pd.DataFrame, name: str, seed: int
) -> tuple[pd.DataFrame, list[Any], frozenset[str]]:
    """Return the rows to use, each with its split 'train', 'val' or 'test'.

    Splits that the data have are kept, except that 'val' is the test if there is none.
    Where 'val' is missing then, a fifth of the training rows becomes it; without any
    split, all three are drawn.

    Args:
        rows (pd.DataFrame): With the columns of :data:`lm4ve.study.pictures.rows.COLUMNS` and
            'content'; its index counts from 0. It is changed.
        name (str): What the user called the data, for messages.
        seed (int): It decides the splits that are made here.

    Returns:
        tuple: The rows, with the column 'joined_group'; the items of classes that are too
        small for three splits; and the splits that were drawn.

    Raises:
        UserError: See :func:`lm4ve.study.pictures.data.read_data`.
    """
    # A row without a group is in one with the pictures that equal its own.
    named_groups = rows['group'].where(rows['group'] != '', rows['content'])
    groups = _join_groups(named_groups, rows['content'])
    rows['joined_group'] = groups
    own_splits = set(rows['split'])
    if own_splits == {''}:
        kept, rare = _split_in_three(rows, groups, seed)
        return kept, rare, frozenset({'train', 'val', 'test'})
    if 'test' not in own_splits:
        rows['split'] = rows['split'].replace('val', 'test')
    for needed in ('train', 'test'):
        if needed not in set(rows['split']):
            raise UserError(
                f"'{name}' has no split '{needed}', only {listing(sorted(own_splits))}. Fix: "
                'add its pictures; or name no splits, and all are drawn.'
            )
    _check_sides(rows, name)
    if 'val' in set(rows['split']):
        return rows, [], frozenset()
    _split_off_val(rows, groups, seed)
    return rows, [], frozenset({'val'})


def _split_in_three(
    rows: pd.DataFrame, groups: pd.Series, seed: int
) -> tuple[pd.DataFrame, list[Any]]:
    """Split rows into train, val and test; classes with too few groups are left out."""
    folds = _fold(rows['label'], groups, seed)
    rows['split'] = folds.map({0: 'test', 1: 'val'}).fillna('train')
    is_kept = folds >= 0
    return rows[is_kept], rows['item'][~is_kept].tolist()


def draw_fit_and_val(
    pictures: np.ndarray, labels: np.ndarray, groups: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Divide pictures into four fifths to fit and one to validate; groups stay whole.

    Classes of fewer than five groups are divided as far as they can be. Where all classes
    have fewer pictures than five, or there are fewer groups, the part to validate is larger.

    Args:
        pictures (np.ndarray): Indices, int64 ``[n]``.
        labels, groups (np.ndarray): Of all pictures, int64.
        seed (int): Decides the division.

    Raises:
        UserError: There is a single group, or one picture of each class.
    """
    most = int(np.bincount(labels[pictures]).max())
    folds = min(FOLDS, most, len(set(groups[pictures].tolist())))
    check('The groups, and pictures of a class, in train and val', folds, least=2)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of classes that are not in each part
        parts = splitter.split(pictures, labels[pictures], groups[pictures])
        fit, val = next(iter(parts))
    return pictures[fit], pictures[val]


def _split_off_val(rows: pd.DataFrame, groups: pd.Series, seed: int) -> None:
    """Move a fifth of the training rows to 'val', in place; groups stay whole."""
    train = rows['split'] == 'train'
    folds = _fold(rows['label'][train], groups[train], seed)
    chosen = groups[folds.index[folds == 0]]
    rows.loc[train & groups.isin(chosen), 'split'] = 'val'


def _check_sides(rows: pd.DataFrame, name: str) -> None:
    """Check that the data's own splits share no group, and warn if they share equal pictures.

    Raises:
        UserError: A group stands in several splits.
    """
    named = rows[rows['group'] != '']
    splits_of_group = named.groupby('group')['split'].nunique()
    shared_groups = sorted(splits_of_group.index[splits_of_group > 1])
    if shared_groups:
        raise UserError(
            f"'{name}': groups in several splits: {listing(shared_groups)}."
        )
    warn_of_shared_files(rows, name)


def _join_groups(groups: pd.Series, contents: pd.Series) -> pd.Series:
    """Join groups that share an equal picture, and return the joined group of each row.

    Groups and pictures are the nodes of a graph, and each row is an edge between its
    group and its picture. Rows of one connected part are one group, named by its first
    name in the alphabet.

    Args:
        groups (pd.Series): The group of each row.
        contents (pd.Series): What is in each row's picture.
    """
    count = len(groups)
    group_nodes = pd.factorize(groups)[0]
    picture_nodes = pd.factorize(contents)[0] + count
    edges = (np.ones(count), (group_nodes, picture_nodes))
    graph = coo_array(edges, shape=(2 * count, 2 * count))
    _, part_of_node = connected_components(graph, directed=False)
    return groups.groupby(part_of_node[group_nodes]).transform('min')


def _fold(labels: pd.Series, groups: pd.Series, seed: int) -> pd.Series:
    """Divide rows into five folds of about equal shares of each class; groups stay whole.

    Args:
        labels, groups (pd.Series): The label and the group of each row.
        seed (int): Decides the folds.

    Returns:
        pd.Series: The fold of each row, 0 to 4; -1 for classes of fewer than five
        groups, which cannot be in each fold.
    """
    folds = pd.Series(-1, index=labels.index)
    groups_of_class = groups.groupby(labels).transform('nunique')
    kept = labels.index[groups_of_class >= FOLDS]
    if len(kept) == 0:
        return folds
    splitter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    parts = splitter.split(kept, labels[kept], groups[kept])
    for fold, (_, chosen) in enumerate(parts):
        folds[kept[chosen]] = fold
    return folds
