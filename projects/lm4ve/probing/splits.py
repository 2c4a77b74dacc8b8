"""Fixes which items train, which choose the learning rate, and which are the test.

A file that stands on both sides of a split makes a score too high. So files of equal
content count as one where splits are made here.
"""

import numpy as np
import pandas as pd
from mmengine.logging import MMLogger
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold

from lm4ve.errors import UserError, check, listing

#: A fifth of the data is for tests, a fifth for choosing the rate, the rest for
#: training.
FOLDS = 5


def assign_splits(rows: pd.DataFrame, name: str, seed: int) -> pd.DataFrame:
    """Return the rows to use, each with its split.

    Args:
        rows (pd.DataFrame): With the columns of :data:`lm4ve.probing.rows.COLUMNS` and
            'digest'; its index counts from 0.
        name (str): What the user called the data, for messages.
        seed (int): It decides the splits that are made here.

    Raises:
        UserError: See :func:`lm4ve.probing.data.read_data`.
    """
    own_group = rows['group'].where(rows['group'] != '', rows['digest'])
    groups = _join_groups(own_group, rows['digest'])
    given = set(rows['split'])
    if given == {''}:
        return _split_in_three(rows, groups, name, seed)
    if 'test' not in given:
        rows['split'] = rows['split'].replace('val', 'test')
    for needed in ('train', 'test'):
        check(f"The splits of '{name}'", needed, choices=set(rows['split']))
    _check_sides(rows, name)
    if 'val' not in set(rows['split']):
        _split_off_val(rows, groups, seed)
    return rows


def _split_in_three(
    rows: pd.DataFrame, groups: pd.Series, name: str, seed: int
) -> pd.DataFrame:
    """Split rows into train, val and test; classes with too few groups are left out."""
    folds = _fold(rows['label'], groups, seed)
    rows['split'] = folds.map({0: 'test', 1: 'val'}).fillna('train')
    rare = sorted(set(rows['label'][folds < 0]))
    if rare:
        MMLogger.get_current_instance().warning(
            f"'{name}': left out, since of fewer than {FOLDS} pictures: {listing(rare)}."
        )
    return rows[folds >= 0]


def _split_off_val(rows: pd.DataFrame, groups: pd.Series, seed: int) -> None:
    """Move a fifth of the training split to 'val'."""
    train = rows['split'] == 'train'
    folds = _fold(rows['label'][train], groups[train], seed)
    chosen = groups[folds.index[folds == 0]]
    rows.loc[train & groups.isin(chosen), 'split'] = 'val'


def _check_sides(rows: pd.DataFrame, name: str) -> None:
    """Look whether given splits share groups or equal files.

    Raises:
        UserError: A group stands in several splits. Equal files only make a warning.
    """
    shared_groups = _in_several_splits(rows, 'group')
    if shared_groups:
        raise UserError(
            f"'{name}': groups in several splits: {listing(shared_groups)}."
        )
    shared_files = _in_several_splits(rows, 'digest')
    if shared_files:
        MMLogger.get_current_instance().warning(
            f"'{name}': {len(shared_files)} equal pictures in several splits; scores are "
            'too high.'
        )


def _in_several_splits(rows: pd.DataFrame, column: str) -> list[str]:
    """Return the values of a column that rows of more than one split have."""
    named = rows[rows[column] != '']
    counts = named.groupby(column)['split'].nunique()
    return sorted(counts.index[counts > 1])


def _join_groups(groups: pd.Series, digests: pd.Series) -> pd.Series:
    """Return groups of which those that share an equal file are one.

    Groups and files are the nodes of a graph, and each row is an edge between its
    group and its file; a connected part is one group.
    """
    count = len(groups)
    group_nodes = pd.factorize(groups)[0]
    file_nodes = pd.factorize(digests)[0] + count
    edges = (np.ones(count), (group_nodes, file_nodes))
    graph = coo_array(edges, shape=(2 * count, 2 * count))
    _, part_of_node = connected_components(graph, directed=False)
    return groups.groupby(part_of_node[group_nodes]).transform('min')


def _fold(labels: pd.Series, groups: pd.Series, seed: int) -> pd.Series:
    """Return each row's fold, 0 to 4, stratified; -1 in a class of fewer than five groups."""
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
