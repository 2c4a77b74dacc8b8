"""Variants of one drawing stand on one side of a split, and a set is written as its table says."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lm4ve.errors import UserError
from tests.helpers.tools import load_tool, run_tool_here

pytest.importorskip('sklearn')
TOOL = load_tool('image/picture_sets.py')


def test_variants_of_an_emoji_are_one_drawing():
    drawing = TOOL['drawing_of']
    # A detective: person; man of dark skin; woman with the style of presentation.
    variants = ['1F575', '1F575-1F3FF-200D-2642-FE0F', '1f575-fe0f-200d-2640-fe0f']
    assert len({drawing(code) for code in variants}) == 1
    assert drawing('1F468-1F3FB-200D-1F9B0') == drawing('1F9D1-200D-1F9B1')
    different = ['1F600', '2640', '1F1E6-1F1E8', '1F1E6']
    assert len({drawing(code) for code in different}) == 4


def test_groups_stay_whole_and_classes_share_alike():
    """Two classes of fifty groups, each of three pictures."""
    rows = []
    for label in ('a', 'b'):
        for i in range(50):
            rows += [dict(group=f'{label}{i}', label=label)] * 3
    table = pd.DataFrame(rows)
    table['split'] = TOOL['split_groups'](table, 0.5, 0.1, np.random.default_rng(0))
    splits_of_group = table.groupby('group')['split'].nunique()
    assert set(splits_of_group) == {1}
    shares = pd.crosstab(table['label'], table['split'])
    assert set(shares['train']) == {60}
    assert set(shares['val']) == {15}
    assert set(shares['test']) == {75}


def test_set_of_digits_is_written_as_listed(tmp_path):
    run_tool_here('image/picture_sets.py', 'digits', '--size', 8, '--out', tmp_path)
    table = pd.read_csv(tmp_path / 'pictures.csv', dtype=str)
    counts = table['split'].value_counts()
    assert len(table) == 1797
    assert set(counts.index) == {'train', 'val', 'test'}
    assert counts['test'] >= 1000
    lines = (tmp_path / 'val.txt').read_text().splitlines()
    assert len(lines) == counts['val']
    path, label = lines[0].rsplit(' ', 1)
    assert path.startswith(f'{label}/')
    with Image.open(tmp_path / path) as image:
        assert image.size == (8, 8)
        assert image.mode == 'RGB'


def test_fashion_is_read_from_the_studied_files_alone(tmp_path):
    (tmp_path / 't10k-images-idx3-ubyte.gz').write_bytes(b'other')
    args = ['fashion', '--source', tmp_path, '--out', tmp_path / 'out']
    with pytest.raises(UserError, match='not the one whose pictures were studied'):
        run_tool_here('image/picture_sets.py', *args)
