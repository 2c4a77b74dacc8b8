"""Every benchmark, in this process and at sizes that take seconds."""

import json
import sys
from importlib import import_module

import pytest
import torch

from tests.helpers.tasks import ROOT

FOLDER = ROOT / 'tools/benchmarks'
TINY = '--width 256 --repeats 1 --warmup 0 --threads 1'
pytest.importorskip('mmpretrain')


@pytest.fixture(scope='module')
def measured(tmp_path_factory):
    """Return a function that runs a benchmark and returns its rows."""
    threads, modules = torch.get_num_threads(), set(sys.modules)
    out = tmp_path_factory.mktemp('benchmark') / 'rows.json'

    def run(name: str, flags: str = '') -> list[dict]:
        import_module(name).main([*f'{TINY} {flags} --out'.split(), str(out)])
        return json.loads(out.read_text())['rows']

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield run
    torch.set_num_threads(threads)
    for name in {p.stem for p in FOLDER.glob('*.py')} - modules:
        sys.modules.pop(name, None)


def test_paths_of_the_block_agree_with_the_reference(measured):
    rows = measured('block', '--channels 32 --batch 2 --tokens 9')
    assert len({(r['path'], r['dtype']) for r in rows}) == len(rows) == 1 + 2 * 5
    assert all(r['seconds'] > 0 and r['speedup'] > 0 for r in rows)
    assert all(r['error'] < (1e-5 if r['dtype'] == 'float32' else 3e-2) for r in rows)
    # The formulas by which 'auto' decides, against the products that ran.
    counted = [(row['run'], row['GMAC']) for row in rows if 'GMAC' in row]
    assert len(counted) == 10 and all(
        n == pytest.approx(m, rel=1e-6) for n, m in counted
    )


_BLOCK, _SMALL = ' + LLaMA-7B block', '--size 32 --depth 1'
_STEPS = [task + block for task in ('image', 'motion') for block in ('', _BLOCK)]
_LOADED = '--tasks image cloud vqa --samples 2 --tflops 0'
#: Benchmark -> its flags, a column that names its rows, and what stands there.
RUNS = {
    'steps': ('--tasks image motion --batch 2', 'path', _STEPS),
    'export': (
        f'{_SMALL} --batches 3',
        'path',
        ['eager', 'onnxruntime', 'torch.export'],
    ),
    'loader': (_LOADED, 'samples', ['images', 'clouds', 'questions']),
    'load': (
        '--layers 2 --repeats 1',
        'dtype',
        [None, *['float16', 'float32'] * 2, 'float16'],
    ),
    # Behind 'load', whose server of forks has imported what both need.
    'weak_scaling': ('--task motion --batch 1', 'batch', [1, 2]),
}


@pytest.mark.parametrize('name', RUNS)
def test_rows_have_names_and_positive_numbers(name, measured, tmp_path):
    for package in dict(export=['onnxscript', 'onnxruntime'], loader=['h5py']).get(
        name, ()
    ):
        pytest.importorskip(package)
    flags, column, names = RUNS[name]
    rows = measured(name, flags + f' --folder {tmp_path}' * (name == 'load'))
    assert [r[column] for r in rows] == names
    assert all(r.get('seconds', r.get('a core')) > 0 for r in rows)
    assert all(r.get('error', 0) < 1e-4 for r in rows)
    if (
        name == 'weak_scaling'
    ):  # 1.3 million parameters of a VectorNet in fp32, sent once each
        assert rows[1]['sent MB'] == pytest.approx(4 * 1.31, rel=0.05)
