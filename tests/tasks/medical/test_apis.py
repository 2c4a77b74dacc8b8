"""What users do with medical models beside training: inference, export, counting."""

import numpy as np
import pytest
import torch

import lm4ve
from lm4ve.apis.models import in_scope_of
from lm4ve.cost.step import cost_of_step
from lm4ve.errors import UserError
from lm4ve.release.exporting import export_model
from lm4ve.tasks import medical as m
from lm4ve.tasks.base.inferencer import FileInferencer
from tests.hosts.small import write_picture
from tests.tasks.medical import files
from tests.tasks.medical.shrink import Shrinker

VOLUME, VIVIT = 'vit3d_llama-3.1-8b_brain-tumour.py', 'vivit_llama-inner_fracturemnist3d.py'


@pytest.fixture
def load(tmp_path):
    shrinker = Shrinker(tmp_path)
    return lambda name: shrinker.load(name, tmp_path)


def test_a_volume_is_segmented_on_the_grid_of_the_pipeline(load, tmp_path):
    voxels = np.random.default_rng(0).random((20, 18, 16, 4), np.float32)
    path = files.write_volume(tmp_path / 'a.nii.gz', voxels)
    (found,) = lm4ve.apis.inference(load(VOLUME), None, [path])
    assert found['pred_seg'].shape == (16, 16, 8) and found['spacing'] == [1.25, 1.125, 4.0]
    assert found['milliliters'] == {'1': pytest.approx(found['pred_seg'].sum() * 5.625e-3)}


def test_an_array_of_medmnist_is_read_as_the_data_set_reads_it(load, tmp_path):
    cfg = load(VIVIT)
    sample = m.MedMNIST(cfg.test_dataloader.dataset.data_root, 'fracturemnist3d', 'test')[0]
    with in_scope_of(cfg):
        ask = FileInferencer(cfg)
        (found,) = ask(sample['img'], out_dir=tmp_path)
    logits = ask.model(torch.from_numpy(sample['img'])[None] / 255)
    assert found['pred_scores'] == pytest.approx(logits.softmax(1)[0].tolist(), abs=1e-5)
    assert (tmp_path / 'array.png').exists()


def test_mmsegmentation_segments_a_picture(load, tmp_path):
    from mmseg.apis import inference_model, init_model

    path = tmp_path / 'a.png'
    write_picture(path, 1)
    cfg = load('cmunext_llama-3.2-1b_busi.py')
    with in_scope_of(cfg):
        found = inference_model(init_model(cfg, device='cpu'), str(path))
    assert found.pred_sem_seg.data.shape[1:] == found.ori_shape
    with pytest.raises(UserError, match='mmseg.apis.inference_model'):
        lm4ve.apis.inference(cfg, None, [path])


@pytest.mark.parametrize('name', [VOLUME, VIVIT])
def test_models_of_volumes_are_exported_and_counted(name, load, tmp_path):
    cfg = load(name)
    neck = cfg.model.get('neck') or cfg.model.backbone.neck
    neck.block.dtype = 'float32'
    with in_scope_of(cfg):
        export_model(cfg, 'none', 'torch-export', tmp_path / 'model.pt2')
        assert cost_of_step(cfg, 2).backward > cost_of_step(cfg, 1).backward > 0
