"""Every benchmark, in this process and at sizes that take seconds."""

import json
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).resolve().parents[2] / 'tools/benchmarks'
TINY = '--width 256 --repeats 1 --warmup 0 --threads 1'


@pytest.fixture(scope='module')
def measured(tmp_path_factory):
    """Return a function that runs a benchmark and returns its rows."""
    threads, modules = torch.get_num_threads(), set(sys.modules)
    out = tmp_path_factory.mktemp('benchmark') / 'rows.json'

    def run(name: str, flags: str = '') -> list[dict]:
        import_module(name).main([*f'{TINY} {flags} --out'.split(), str(out)])
        return json.loads(out.read_text())['rows']

    sys.path.insert(0, str(FOLDER))
    yield run
    sys.path.remove(str(FOLDER))
    torch.set_num_threads(threads)
    for name in {p.stem for p in FOLDER.glob('*.py')} - modules:
        sys.modules.pop(name, None)


@pytest.fixture(scope='module')
def rows(measured):
    pytest.importorskip('mmpretrain')
    return measured('block', '--channels 32 --batch 2 --tokens 9')


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


def test_auto_is_compared_with_every_path(measured):
    one, every = measured('auto', '--dtype float32 --batches 2 --channels 32 --tokens 9')
    assert one['ratio'] == one[one['auto']] / min(one[m] for m in ('off', 'fold', 'absorb'))
    assert every['auto'] in ('off', 'fold') and 'absorb' not in every


def test_a_training_step_is_compared_with_one_without_a_block(measured):
    pytest.importorskip('mmpretrain')
    rows = measured('train_step', '--cases 1:bfloat16 --reference')
    assert [(r['batch'], r.get('dtype')) for r in rows] == [
        (1, None),
        (1, 'bfloat16'),
        (1, 'float32'),
    ]
    assert rows[0]['ratio'] == 1 and all(r['ratio'] > 0 for r in rows)


def test_loading_is_measured_for_every_layout(measured, tmp_path):
    rows = measured('load', f'--folder {tmp_path} --layers 2 --repeats 1')
    ways = [(r['path'], r['cache'], r['dtype']) for r in rows]
    assert len(set(ways)) == len(ways) == 2 * (1 + 2 * 2 + 1)
    assert all(r['seconds'] > 0 and r['of raw'] > 0 for r in rows)
    by_way = dict(zip(ways, rows, strict=True))
    assert by_way["raw read of a layer's bytes", 'warm', None]['of raw'] == 1


def test_a_step_of_meter_is_measured_with_both_kinds_of_tokens(measured):
    rows = measured('meter', '--tiny --batch 2 --size 64 --words 4 --tokens visual joint')
    assert [r['path'].partition(' on ')[2] for r in rows] == ['', 'visual tokens', 'joint tokens']
    assert rows[0]['ratio'] == rows[0]['CPU ratio'] == 1 and all(r['seconds'] > 0 for r in rows)


def test_the_proof_that_folds_are_fresh_has_a_price(measured):
    rows = measured('fold_check', '--batches 1 2 --channels 32 --tokens 9')
    assert [(r['path'], r['dtype']) for r in rows] == [
        (f'{method}, batch {batch}', dtype)
        for dtype in ('float32', 'bfloat16')
        for batch in (1, 2)
        for method in ('absorb', 'fold')
    ]
    assert all(r['price'] > -1 and 0 < r['CPU share'] < 1e3 for r in rows)


def test_an_exported_classifier_is_compared_with_the_model(measured):
    for package in ('mmpretrain', 'onnxscript', 'onnxruntime'):
        pytest.importorskip(package)
    rows = measured('export', '--size 32 --depth 1 --batches 1 3')
    assert [(r['path'], r['batch']) for r in rows] == [
        (path, batch) for batch in (1, 3) for path in ('eager', 'onnxruntime', 'torch.export')
    ]
    assert all(r['error'] < 1e-4 and r['speedup'] > 0 for r in rows)


def test_a_step_of_a_task_is_measured(measured):
    rows = measured('steps', '--tasks motion --tiny --dtype float32')
    assert [r['path'] for r in rows] == ['motion', 'motion + LLaMA-7B block']
    assert rows[0]['ratio'] == 1 and rows[1]['GMAC'] > rows[0]['GMAC'] > 0
    assert all(r['CPU seconds'] > 0 for r in rows)


def test_every_pipeline_is_measured_on_made_files(measured):
    for package in ('mmpretrain', 'h5py', 'sklearn'):
        pytest.importorskip(package)
    rows = measured('loader', '--tasks image cloud vqa --samples 2 --tflops 0 --stages')
    whole = [r for r in rows if 'a core' in r]
    assert [r['samples'] for r in whole] == ['images', 'clouds', 'questions']
    assert all(r['a core'] > 0 and 'cores' not in r for r in whole)
    shares = [r['share'] for r in rows if 'share' in r]
    assert sum(shares) == pytest.approx(3) and min(shares) >= 0
    assert '  RandAugment' in [r['path'] for r in rows]


def test_workers_follow_from_what_a_gpu_asks_for(measured):
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
