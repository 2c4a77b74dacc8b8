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
    threads = torch.get_num_threads()
    modules = set(sys.modules)
    out = tmp_path_factory.mktemp('benchmark') / 'rows.json'

    def run(name: str, flags: str) -> list[dict]:
        words = f'{TINY} {flags} --out {out}'.split()
        import_module(name).main(words)
        return json.loads(out.read_text())['rows']

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield run
    torch.set_num_threads(threads)
    for name in {p.stem for p in FOLDER.glob('*.py')} - modules:
        sys.modules.pop(name, None)


def test_paths_of_the_block_agree_with_the_reference(measured):
    rows = measured('block', '--channels 32 --batch 2 --tokens 9')
    assert len(rows) == 1 + 2 * 5
    assert len({(row['path'], row['dtype']) for row in rows}) == len(rows)
    bounds = dict(float32=1e-5, bfloat16=3e-2)
    for row in rows:
        assert row['seconds'] > 0
        assert row['speedup'] > 0
        assert row['error'] < bounds[row['dtype']]
    macs = {row['path']: row['GMAC'] for row in rows if 'GMAC' in row}
    assert macs['queries only, absorb'] < macs['queries only'] < macs['all tokens']


#: Benchmark -> its flags, a column that names its rows, and what stands there.
RUNS = {
    'steps': (
        '--tasks image motion --batch 2',
        'path',
        [
            'image',
            'image + LLaMA-7B block',
            'motion',
            'motion + LLaMA-7B block',
        ],
    ),
    'export': (
        '--size 32 --depth 1 --batches 3',
        'path',
        ['eager', 'onnxruntime', 'torch.export'],
    ),
    'loader': (
        '--tasks image cloud vqa --samples 2 --tflops 0',
        'samples',
        ['images', 'clouds', 'questions'],
    ),
    'load': (
        '--layers 2 --repeats 1 --folder {folder}',
        'dtype',
        [None, 'float16', 'float32', 'float16', 'float32', 'float16'],
    ),
    'precision': (
        '--tasks cloud --batch 2 --variants block-bf16 amp-bf16 tf32 channels-last '
        'fused-adamw',
        'precision',
        ['fp32', 'block-bf16', 'amp-bf16', 'channels-last', 'fused-adamw'],
    ),
    # Behind 'load', whose server of forks has imported what both need.
    'weak_scaling': ('--task motion --batch 1', 'batch', [1, 2]),
}


def test_gradients_of_16_bits_are_near_those_of_fp32(measured):
    rows = measured('gradients', '--tasks motion --batch 2')
    assert len(rows) == 3 * 3
    for row in rows:
        is_exact = row['block'] == 'float32'
        assert (row['gradient error'] == 0) == is_exact
        if row['loss times'] == 1:
            assert float(row['cosine']) > 0.99
        else:
            assert float(row['cosine']) > 0


#: Benchmark -> packages that it needs beside the core's.
PACKAGES = {'export': ['onnxscript', 'onnxruntime'], 'loader': ['h5py']}


@pytest.mark.parametrize('name', RUNS)
def test_rows_have_names_and_positive_numbers(name, measured, tmp_path):
    for package in PACKAGES.get(name, []):
        pytest.importorskip(package)
    flags, column, names = RUNS[name]
    rows = measured(name, flags.format(folder=tmp_path))
    assert [row[column] for row in rows] == names
    time = 'a core' if name == 'loader' else 'seconds'
    for row in rows:
        assert row[time] > 0
        assert row.get('error', 0) < 1e-4
    if name == 'weak_scaling':
        # 1.3 million parameters of a VectorNet in fp32, sent once each.
        assert rows[1]['sent MB'] == pytest.approx(4 * 1.31, rel=0.05)
