"""The retrieval loops score all pairs, as one pair at a time and one process would."""

import json
import os

import pytest
import torch

from lm4ve.tasks.vqa.metrics import recall_at
from tests.helpers import quick_python
from tests.helpers.tasks import ROOT
from tests.helpers.tools import run_command
from tests.runner.test_distributed import environment
from tests.tasks.vqa.retrieval_run import CAPTIONS, COARSE, runner_of, validate, write

TOTAL = sum(CAPTIONS)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp('captions'))


@pytest.fixture(scope='module')
def exact(folder, tmp_path_factory):
    """Scores of every pair, one pair at a time through the model's own forward."""
    runner = runner_of(folder, tmp_path_factory.mktemp('brute'))
    model = runner.model.eval()
    runner._val_loop = runner.build_val_loop(runner._val_loop)
    data = runner.val_dataloader.dataset
    samples = [data[i] for i in range(len(data))]
    texts = [t for s in samples for t in s['data_samples'].text]
    scores = torch.zeros(len(samples), len(texts))
    for i, sample in enumerate(samples):
        for t, text in enumerate(texts):
            pair = sample['data_samples'].clone()
            pair.set_metainfo(dict(text=[text]))
            batch = dict(inputs=[sample['inputs']], data_samples=[pair])
            with torch.no_grad():
                inputs = model.data_preprocessor(batch)['inputs']
                scores[i, t] = model.head.score(model(inputs, mode='tensor')[:, 0])
    owner = [i for i, count in enumerate(CAPTIONS) for _ in range(count)]
    return scores, owner


@pytest.mark.parametrize('size', [1, 9, 1000])
def test_scores_equal_one_pair_at_a_time(size, folder, exact, tmp_path):
    scores, owner = exact
    metrics, (sample,) = validate(folder, tmp_path, pairs_per_batch=size)
    assert sample['scores'].shape == (len(CAPTIONS), TOTAL)
    torch.testing.assert_close(sample['scores'], scores, atol=1e-5, rtol=1e-5)
    assert sample['image_of_caption'].tolist() == owner
    expected = {f'retrieval/{k}': v for k, v in recall_at(scores, owner, (1, 2, 3)).items()}
    assert expected.items() <= metrics.items()
    assert scores.unique().numel() > 50  # these scores do tell pairs apart


def test_coarse_scores_choose_the_fused_pairs(folder, exact, tmp_path):
    scores, _ = exact
    _, (sample,) = validate(folder, tmp_path, coarse=dict(top_k=2))
    found = sample['scores']
    fused = (found - scores).abs() < 1e-4
    assert fused.sum(0).min() >= 2 and fused.sum(1).min() >= 2
    assert 2 * TOTAL <= fused.sum() <= 2 * (TOTAL + len(CAPTIONS))
    # Whatever was not fused comes behind all that was.
    assert found[~fused].max() < found[fused].min()


@pytest.mark.slow
def test_two_processes_score_as_one(folder, exact, tmp_path):
    module = 'tests.tasks.vqa.retrieval_run'
    launch = [quick_python.folder() / 'python', '-m', 'torch.distributed.run', '--nproc_per_node=2']
    env = dict(environment(), PYTHONPATH=f'{ROOT}{os.pathsep}{ROOT / "projects"}')
    command = [*launch, f'--master_port={env["PORT"]}', '-m', module, folder, tmp_path / 'out']
    done = run_command(*command, cwd=ROOT, env=env, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [json.loads((tmp_path / f'out.{rank}').read_text()) for rank in range(2)]
    assert ranks[0] == ranks[1]
    for number, coarse in enumerate(COARSE):
        found = ranks[0][number]
        alone, (sample,) = validate(folder, tmp_path / f'{number}', coarse=coarse)
        assert found['owner'] == exact[1] and found['metrics'] == pytest.approx(alone)
        scores = torch.tensor(found['scores'])
        torch.testing.assert_close(scores, sample['scores'], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('mode', ['val', 'test'])
def test_encoders_run_once(mode, folder, tmp_path):
    runner = runner_of(folder, tmp_path)
    seen = dict(encode_images=0, encode_texts=0, score_pairs=0)

    def count(name, method):
        def counting(first, *rest):
            seen[name] += len(first)
            return method(first, *rest)

        return counting

    for name in seen:
        setattr(runner.model, name, count(name, getattr(runner.model, name)))
    getattr(runner, mode)()
    assert list(seen.values()) == [len(CAPTIONS), TOTAL, len(CAPTIONS) * TOTAL]
