"""A mistake on the command line or in a config is one line: the field or file, and the fix."""

import re

import pytest

from tests.helpers.tasks import CONFIGS

pytest.importorskip('mmpretrain')
DEMO = CONFIGS / 'lm4ve/vit-demo_none_digits.py'

#: Tool, its arguments ('{tmp}' is a folder with epoch_1.pth and photos.py), the
#: message.
MISTAKES = [
    (
        'test.py',
        '{demo} {tmp}',
        'is a folder. Fix: name one of its files: .*epoch_1.pth',
    ),
    (
        'test.py',
        '{demo} {tmp}/other.pth',
        "The checkpoint '.*other.pth' does not exist",
    ),
    (
        'test.py',
        '{demo} {tmp}/epoch_1.pth --out p.csv --out-item metrics',
        "--out='p.csv': its ending.*[.]json",
    ),
    (
        'test.py',
        '{demo} {tmp}/epoch_1.pth --out p.txt',
        "--out='p.txt': its ending.*[.]csv",
    ),
    ('test.py', '{demo} {tmp}/epoch_1.pth --interval 0', '--interval: 0 is below 1'),
    (
        'test.py',
        '{demo} {tmp}/epoch_1.pth --wait-time nan',
        '--wait-time: nan is below 0.0',
    ),
    ('export.py', '{demo} {tmp}', 'is a folder. Fix: '),
    ('export.py', '{demo} none --tolerance abc', "--tolerance: 'abc' is not a number"),
    (
        'export.py',
        '{demo} none --cfg-options env_cfg.tf23=1',
        'env_cfg.tf23 is not a known field',
    ),
    (
        'train.py',
        '{demo} --cfg-options load_from={tmp}',
        "load_from='.*' is a folder. Fix: ",
    ),
    (
        'analysis/ablate.py',
        '{demo}',
        "no dict 'variants'. Fix: see docs/guides/ablations.md",
    ),
    ('analysis/ablate.py', '{tmp}/no.py', "The grid '.*no.py' does not exist. Fix: "),
    ('analysis/ablate.py', '{tmp}/photos.py --threads 0', '--threads: 0 is below 1'),
    (
        'make_release.py',
        '{demo} {tmp}/epoch_1.pth {tmp}/photos.py',
        "photos.py' is a file. Fix: ",
    ),
    (
        'make_release.py',
        '{demo} {tmp}/epoch_1.pth {tmp}/new.py',
        'has the name of a file. Fix: ',
    ),
]


@pytest.mark.parametrize('tool, words, message', MISTAKES)
def test_mistake_is_one_line_with_the_fix(
    tool, words, message, tmp_path, fails, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for name in ('epoch_1.pth', 'photos.py'):
        (tmp_path / name).touch()
    said = fails(tool, *words.format(demo=DEMO, tmp=tmp_path).split())
    assert len(said.strip().splitlines()) == 1 and 'traceback' not in said
    assert re.search(message, said), said
