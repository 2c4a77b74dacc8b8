"""A folder of classes is copied into train and val; twins stand on one side."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lm4ve.errors import UserError
from tests.helpers.tools import run_tool_here

pytest.importorskip('sklearn')
TOOL = 'image/split_folder.py'


@pytest.fixture
def photos(tmp_path):
    """Two classes of ten pictures, each with a twin as WebP, and an empty file."""
    root = tmp_path / 'photos'
    for label, name in enumerate(('cat', 'dog')):
        (root / name).mkdir(parents=True)
        for number in range(10):
            rng = np.random.default_rng([label, number])
            noise = cv2.GaussianBlur(rng.normal(128, 400, (40, 40, 3)), (0, 0), 5)
            image = Image.fromarray(noise.clip(0, 255).astype(np.uint8))
            image.save(root / name / f'{number}.png')
            image.save(root / name / f'{number}.webp', lossless=True)
    (root / 'cat/empty.jpg').touch()
    (root / 'cat/notes.txt').touch()
    return root


@pytest.mark.parametrize('flags', [[], ['--test']])
def test_a_fifth_validates_and_twins_stay_together(flags, photos, capsys):
    out = photos.parent / 'out'
    run_tool_here(TOOL, photos, out, *flags)
    splits = ['test', 'train', 'val'] if flags else ['train', 'val']
    assert sorted(path.name for path in out.iterdir()) == ['left_out.csv', *splits]
    left_out = pd.read_csv(out / 'left_out.csv')['path']
    assert sorted(Path(path).name for path in left_out) == ['empty.jpg', 'notes.txt']
    sides = {}
    for path in out.glob('*/*/*'):
        split, label, _ = path.relative_to(out).parts
        sides.setdefault((label, path.stem), []).append(split)
    assert len(sides) == 20
    assert all(len(two) == 2 and len(set(two)) == 1 for two in sides.values())
    validating = [key for key, (split, _) in sides.items() if split == 'val']
    assert len(validating) == 4
    assert len(list(photos.rglob('*.*'))) == 42
    assert 'val' in capsys.readouterr().out


def test_folders_that_would_be_mixed_are_refused(photos):
    out = photos.parent / 'out'
    run_tool_here(TOOL, photos, out)
    with pytest.raises(UserError, match='is not empty'):
        run_tool_here(TOOL, photos, out)
    with pytest.raises(UserError, match='has splits already'):
        run_tool_here(TOOL, out, photos.parent / 'other')
