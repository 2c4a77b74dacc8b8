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
    assert len(counted) == 10 and all(n == pytest.approx(m, rel=1e-6) for n, m in counted)


@pytest.mark.parametrize(
    'name, flags, paths, packages',
    [
        (
            'train_step',
            '--cases 1:bfloat16 --reference',
            ['ViT-S', *(f'ViT-S + LLaMA-7B block ({n})' for n in ('auto', 'plain reference'))],
            [],
        ),
        (
            'steps',
            '--tasks motion --tiny --dtype float32',
            ['motion', 'motion + LLaMA-7B block'],
            [],
        ),
        (
            'export',
            '--size 32 --depth 1 --batches 3',
            ['eager', 'onnxruntime', 'torch.export'],
            ['onnxscript', 'onnxruntime'],
        ),
    ],
)
def test_paths_are_measured_and_compared(name, flags, paths, packages, measured):
    for package in packages:
        pytest.importorskip(package)
    rows = measured(name, flags)
    assert [r['path'] for r in rows] == paths
    compared = [r.get('ratio', r.get('speedup')) for r in rows]
    assert compared[0] == pytest.approx(1) and all(c > 0 for c in compared)
    assert all(r.get('error', 0) < 1e-4 for r in rows)


def test_loading_is_measured_for_every_layout(measured, tmp_path):
    rows = measured('load', f'--folder {tmp_path} --layers 2 --repeats 1')
    assert len({(r['path'], r['dtype']) for r in rows}) == len(rows) == 1 + 2 * 2 + 1
    assert all(r['seconds'] > 0 and r['of raw'] > 0 for r in rows) and rows[0]['of raw'] == 1


def test_every_pipeline_is_measured_on_made_files(measured):
    for package in ('h5py', 'sklearn'):
        pytest.importorskip(package)
    rows = measured('loader', '--tasks image cloud vqa --samples 2 --tflops 0')
    assert [r['samples'] for r in rows] == ['images', 'clouds', 'questions']
    assert all(r['a core'] > 0 and 'cores' not in r for r in rows)


def test_workers_follow_from_the_speed_of_a_gpu(measured):
    (row,) = measured('loader', '--tasks motion --samples 4 --tflops 1 --utilization 0.5')
    # 30.75 GMAC a step of 32 scenes (docs/results/cost.md), an operation each for both halves.
    assert row['GPU asks'] == pytest.approx(0.5e12 / 2 / (30.75e9 / 32), rel=0.01)
    assert row['cores'] == -(-row['GPU asks'] // row['a core'])


def test_two_processes_are_compared_with_one(measured):
    rows = measured('weak_scaling', '--task motion --batch 1')
    assert [r['batch'] for r in rows] == [1, 2] and rows[0]['efficiency'] == 1
    assert 0 < rows[1]['efficiency'] and rows[1]['seconds'] > 0
    # 1.3 million parameters of a VectorNet in fp32: two processes send them once each.
    assert rows[1]['sent MB'] == pytest.approx(4 * 1.31, rel=0.05)
