"""The benchmarks of the block and of loading, at sizes that take seconds."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def measured(out: Path, name: str, *flags: str) -> list:
    run = subprocess.run(
        [sys.executable, ROOT / 'tools/benchmarks' / name, *flags, '--threads', '1', '--out', out],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(out.read_text())['rows']


@pytest.fixture(scope='module')
def rows(tmp_path_factory):
    return measured(
        tmp_path_factory.mktemp('benchmark') / 'block.json',
        'block.py',
        '--width',
        '256',
        '--channels',
        '32',
        '--batch',
        '2',
        '--tokens',
        '9',
        '--repeats',
        '2',
    )


def test_every_path_in_every_type_is_measured(rows):
    names = [(r['path'], r['dtype']) for r in rows]
    assert len(set(names)) == len(names) == 2 + 2 * 5
    assert all(r['seconds'] > 0 and r['speedup'] > 0 for r in rows)


def test_paths_agree_with_the_reference(rows):
    for row in rows:
        limit = 1e-5 if row['dtype'] == 'float32' else 3e-2
        assert row.get('error', 0.0) < limit, row


def test_the_counted_operations_are_those_that_run(rows):
    """The formulas by which 'auto' decides, against the recorded products."""
    paths = [r for r in rows if 'GMAC' in r]
    assert len(paths) == 10
    for row in paths:
        assert row['run'] == pytest.approx(row['GMAC'], rel=1e-6), row


@pytest.mark.slow
def test_loading_is_measured_for_every_layout(tmp_path):
    rows = measured(
        tmp_path / 'load.json',
        'load.py',
        '--folder',
        str(tmp_path),
        '--width',
        '256',
        '--layers',
        '2',
        '--repeats',
        '1',
    )
    ways = [(r['path'], r['cache'], r['dtype']) for r in rows]
    assert len(set(ways)) == len(ways) == 2 * (1 + 2 * 2 + 1)
    assert all(r['seconds'] > 0 and r['of raw'] > 0 for r in rows)
    by_way = dict(zip(ways, rows, strict=True))
    assert by_way["raw read of a layer's bytes", 'warm', None]['of raw'] == 1
