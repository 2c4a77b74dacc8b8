"""Every config of METER trains, validates, saves, resumes and tests."""

import json

import pytest
import torch

from lm4ve.runner.command_line import build_runner
from lm4ve.tasks.vqa.converters import convert_meter
from tests.helpers.config_runs import metrics_of_saved, train_and_resume
from tests.helpers.tasks import configs_of
from tests.helpers.vqa import released

# A training that was resumed gives the same bits as one that was not.
pytestmark = pytest.mark.bitwise


@pytest.mark.parametrize('name', configs_of('vqa'))
def test_config_trains_validates_saves_resumes_and_tests(name, shrinker, tmp_path):
    # Two questions of each of two images of test-dev.
    results = shrinker.folder / 'work_dirs/vqav2_test-dev2015.json'
    results.unlink(missing_ok=True)
    train_and_resume(shrinker, name, tmp_path)
    metrics_of_saved(shrinker, name, tmp_path)
    assert results.exists() == name.endswith('trainval.py')
    if results.exists():
        answered = [r['question_id'] for r in json.loads(results.read_text())]
        assert answered == [201000, 201001, 202000, 202001]


def test_training_starts_from_a_converted_meter(shrinker, tmp_path):
    """Trunk and rank are the file's, the block's mappers start at random."""
    state = convert_meter(released.random_state('pretrain'), task='retrieval')
    torch.save(dict(state_dict=state), tmp_path / 'meter.pth')
    cfg = shrinker.load('meter_llama_flickr30k.py', tmp_path)
    cfg.load_from = str(tmp_path / 'meter.pth')
    cfg.optim_wrapper.optimizer.lr = 0.0
    runner = build_runner(cfg)
    runner.train()
    got = runner.model.state_dict()
    assert all(torch.equal(got[k], v) for k, v in state.items())
    assert {k.partition('.')[0] for k in set(got) - set(state)} == {'neck'}
