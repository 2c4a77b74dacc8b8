"""Messages about traffic files show little of what the files hold."""

import re
import shutil

import pandas as pd
import pytest

from lm4ve.errors import UserError, brief
from lm4ve.tasks.motion import Argoverse1Reader, Argoverse2Reader

SECRET = 'secret' * 40


def message_of(read, *args) -> str:
    with pytest.raises(UserError) as caught:
        read(*args)
    return str(caught.value)


def in_text(path, pattern: str, put: str) -> None:
    """Put a text where a pattern is found first."""
    text, count = re.subn(pattern, put, path.read_text(), count=1)
    assert count == 1
    path.write_text(text)


@pytest.mark.parametrize('column', ['X', 'CITY_NAME'])
def test_a_cell_of_a_sequence(argoverse1, tmp_path, column):
    root = shutil.copytree(argoverse1, tmp_path / 'av1')
    reader = Argoverse1Reader(root / 'train/data', root / 'map_files')
    path = reader.files()[0]
    table = pd.read_csv(path, dtype=str)
    if column == 'CITY_NAME':
        table[column] = SECRET
    else:
        table.loc[0, column] = SECRET
    table.to_csv(path, index=False)
    assert SECRET[:80] not in message_of(reader.read, path)


def test_the_header_of_a_sequence(argoverse1, tmp_path):
    root = shutil.copytree(argoverse1, tmp_path / 'av1')
    reader = Argoverse1Reader(root / 'train/data', root / 'map_files')
    path = reader.files()[0]
    in_text(path, 'CITY_NAME', SECRET)
    assert SECRET[:80] not in message_of(reader.read, path)


@pytest.mark.parametrize('pattern', [r'(?<= x=")[^"]*', r'(?<=lane_id=")[^"]*'])
def test_a_map_of_a_city(argoverse1, tmp_path, pattern):
    root = shutil.copytree(argoverse1, tmp_path / 'av1')
    reader = Argoverse1Reader(root / 'train/data', root / 'map_files')
    city = reader.read(reader.files()[0]).city
    (path,) = (root / 'map_files').glob(f'*{city}*.xml')
    in_text(path, pattern, SECRET)
    again = Argoverse1Reader(root / 'train/data', root / 'map_files')
    assert SECRET[:80] not in message_of(again.city_map, city)


def test_a_map_of_a_scenario(argoverse2, tmp_path):
    root = shutil.copytree(argoverse2, tmp_path / 'av2')
    reader = Argoverse2Reader(root / 'train')
    path = reader.files()[0]
    (map_file,) = path.parent.glob('log_map_archive_*.json')
    in_text(map_file, r'(?<="x": )[-0-9.]+', f'"{SECRET}"')
    assert SECRET[:80] not in message_of(reader.read, path)


def test_what_is_shown_is_short_and_printable():
    assert brief('PIT') == 'PIT'
    assert brief('a\nb\x00') == r'a\nb\x00'
    assert len(brief(SECRET)) < 70 and brief(SECRET).startswith('secret')
