"""An inferencer's fused model gives the scores of the model as it was trained."""

import cv2
import numpy as np
import pytest

from lm4ve.necks.fusing import FusedBlock
from lm4ve.runner.config import read_config
from lm4ve.tasks import task_of_config
from lm4ve.tasks.base.building import build_model, collate, samples_of_files
from lm4ve.tasks.base.inferencer import FileInferencer
from tests.helpers.tiny_runs import PLACE, write_runs

RNG = np.random.default_rng(0)
INPUTS = dict(
    vit_frozen=('mmpretrain', 'a.png', RNG.integers(0, 255, (8, 8, 3), np.uint8)),
    pointbert=('torch', 'a.npy', RNG.normal(size=(64, 3))),
)


@pytest.mark.parametrize('name', INPUTS)
def test_fused_scores_equal_the_model(name, tmp_path, monkeypatch):
    host, file, content = INPUTS[name]
    pytest.importorskip(host)
    monkeypatch.chdir(tmp_path)
    write_runs(tmp_path, name)
    write = np.save if file.endswith('.npy') else cv2.imwrite
    write(file, content)
    config, checkpoint = f'{PLACE}/{name}.py', f'{PLACE}/{name}.pth'
    inferencer = FileInferencer(config, checkpoint, device='cpu')
    assert any(isinstance(m, FusedBlock) for m in inferencer.model.modules())
    (found,) = inferencer(file)
    if host == 'mmpretrain':
        assert np.array_equal(inferencer(content)[0]['pred_scores'], found['pred_scores'])
    cfg = read_config(config)
    model, _ = build_model(cfg, checkpoint)
    model.eval()
    samples = [s.data for s in samples_of_files(cfg, [file])]
    (output,) = model.test_step(collate(cfg, samples))
    expected = task_of_config(cfg).analysis.result(output, None)['pred_scores']
    assert np.abs(found['pred_scores'] - expected).max() <= 1e-6 * np.abs(expected).max()
