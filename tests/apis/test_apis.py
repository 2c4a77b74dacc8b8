"""``lm4ve.apis``: one call for the models of every task, by the names of the zoo."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope

import lm4ve
from lm4ve.errors import CheckpointError, UserError
from lm4ve.necks.fusing import FusedBlock
from lm4ve.runner.config import read_config
from lm4ve.tasks import task_of_config
from lm4ve.tasks.base.building import build_model, collate, samples_of_files
from lm4ve.tasks.base.inference import FileInferencer
from tests.helpers.closeness import assert_equal_but_for_rounding
from tests.helpers.families import write_huggingface
from tests.helpers.logs import record_logs
from tests.helpers.pointcloud.clouds import cloud, write_cloud
from tests.helpers.tasks import FOLDERS, configs_of
from tests.helpers.tiny_runs import PLACE, enlarged, write_runs
from tests.helpers.vqa.files import write_image

#: Task -> a small model of the zoo.
DEMOS = dict(
    image='vit-demo_none_digits',
    video='videomae-demo_none_moving-digits',
    pointcloud='pointbert-demo_none_primitives',
    motion='vectornet-demo_none_sim',
)


def write_inputs(task: str, folder) -> list:
    """Write three inputs that a task reads."""
    if task == 'motion':
        from lm4ve.tasks.motion.datasets.traffic_files import write_argoverse1

        write_argoverse1(folder, dict(train=3))
        return sorted((folder / 'train/data').glob('*.csv'))
    if task == 'video':
        from tests.helpers.video.videos import write_noise

        return [write_noise(folder / f'{i}.mp4', seed=i) for i in range(3)]
    if task == 'image':
        return [write_image(folder / f'{i}.png', i, (8, 8)) for i in range(3)]
    return [write_cloud(folder / f'{i}.npy', cloud(1100, i)) for i in range(3)]


@pytest.mark.parametrize('task, name', DEMOS.items())
def test_every_task_predicts_for_files(task, name, tmp_path):
    pytest.importorskip({'image': 'mmpretrain', 'video': 'mmaction'}.get(task, 'torch'))
    checkpoint = tmp_path / 'model.pth'
    files = write_inputs(task, tmp_path)
    model = enlarged(lm4ve.apis.get_model(name), 0.1)  # with weights that say something
    torch.save(dict(state_dict=model.state_dict()), checkpoint)
    scope = DefaultScope.get_current_instance()
    found = lm4ve.apis.inference(
        name, checkpoint, files, batch_size=2, device='cpu', out_dir=tmp_path / 'out'
    )
    (alone,) = lm4ve.apis.inference(name, checkpoint, files[2], device='cpu')
    assert DefaultScope.get_current_instance() is scope
    key = 'probabilities' if task == 'motion' else 'pred_scores'
    assert len(found) == 3
    assert not np.allclose(found[0][key], found[1][key])
    for result in found:
        assert np.isclose(result[key].sum(), 1, atol=1e-4)
        if task != 'motion':
            assert result['pred_label'] == result[key].argmax()
            assert result['pred_score'] == pytest.approx(result[key].max())
            assert result['pred_class']
    np.testing.assert_allclose(alone[key], found[2][key], atol=1e-5)
    pictures = [path for path in (tmp_path / 'out').iterdir() if path.stat().st_size]
    assert len(pictures) == 3
    assert {path.suffix for path in pictures} <= {'.png', '.mp4'}


@pytest.mark.parametrize('task, name', DEMOS.items())
def test_damaged_files_of_a_folder_are_skipped_and_named(
    task, name, tmp_path, monkeypatch
):
    pytest.importorskip({'image': 'mmpretrain', 'video': 'mmaction'}.get(task, 'torch'))
    files = write_inputs(task, tmp_path)
    folder = files[0].parent
    content = files[0].read_bytes()
    damaged = dict(empty=b'', text=b'hello', cut=content[: len(content) // 2])
    for stem, data in damaged.items():
        (folder / f'{stem}{files[0].suffix}').write_bytes(data)
    (folder / 'photo.HEIC').write_bytes(b'....ftypheic')
    warnings = record_logs(
        monkeypatch, 'lm4ve.tasks.base.inputs', 'lm4ve.data.folder_listing'
    )
    found = lm4ve.apis.inference(name, None, folder, batch_size=2, device='cpu')
    assert [result['path'] for result in found] == [str(file) for file in files]
    (left_out,) = [text for text in warnings if 'left out' in text]
    assert 'photo.HEIC' in left_out
    (skipped,) = [text for text in warnings if 'Skipped' in text]
    assert skipped.startswith('Skipped: 3 of 6 files cannot be read: ')
    for stem in damaged:
        file = folder / f'{stem}{files[0].suffix}'
        assert str(file) in skipped
        with pytest.raises(UserError, match=file.name):
            lm4ve.apis.inference(name, None, [files[0], file], device='cpu')
    for file in files:
        file.unlink()
    with pytest.raises(UserError, match='3 of 3 files cannot be read'):
        lm4ve.apis.inference(name, None, folder, device='cpu')


def test_list_models_lists_every_config():
    for task in FOLDERS:
        names = []
        for config in configs_of(task):
            if not config.startswith('robustness/'):
                names.append(Path(config).stem)
        assert lm4ve.apis.list_models(task=task) == sorted(names)
    demos = lm4ve.apis.list_models('*demo*digits', task='image')
    assert demos
    for name in demos:
        assert 'demo' in name
        assert name.endswith('digits')
    assert set(demos) < set(lm4ve.apis.list_models())
    with pytest.raises(
        UserError, match="task='images' must be one of .*image, medical"
    ):
        lm4ve.apis.list_models(task='images')


def test_get_model_applies_overrides(tmp_path):
    pytest.importorskip('mmpretrain')
    llm = write_huggingface(tmp_path, 'llama')
    neck = dict(block=dict(checkpoint=str(llm), layers=(-1,)))
    model = lm4ve.apis.get_model('vit-s_llama_in1k', neck=neck)
    assert model.neck.block.source['source'] == str(llm)
    assert not model.training
    with pytest.raises(UserError, match="does not exist. Did you mean 'vit-demo_"):
        lm4ve.apis.get_model('vit-demo_digits')
    with pytest.raises(
        CheckpointError, match='vit-s_in1k.*but with: .*vit-demo_none_digits'
    ):
        lm4ve.apis.get_model('vit-s_in1k', pretrained=True)
    path = FOLDERS['image'] / 'vit-demo_none_digits.py'
    assert type(lm4ve.apis.get_model(path)).__name__ == 'ImageClassifier'
    assert task_of_config(read_config(path)).name == 'image'


RNG = np.random.default_rng(0)
INPUTS = dict(
    vit_frozen=('mmpretrain', 'a.png', RNG.integers(0, 255, (8, 8, 3), np.uint8)),
    pointbert=('torch', 'a.npy', RNG.normal(size=(64, 3))),
)


@pytest.mark.parametrize('name', INPUTS)
@pytest.mark.bitwise
def test_fused_scores_equal_the_model(name, tmp_path, monkeypatch):
    host, file, content = INPUTS[name]
    pytest.importorskip(host)
    monkeypatch.chdir(tmp_path)
    write_runs(tmp_path, name)
    write = np.save if file.endswith('.npy') else cv2.imwrite
    write(file, content)
    config = f'{PLACE}/{name}.py'
    checkpoint = f'{PLACE}/{name}.pth'
    inferencer = FileInferencer(config, checkpoint, device='cpu')
    assert any(isinstance(m, FusedBlock) for m in inferencer.model.modules())
    (found,) = inferencer(file)
    if host == 'mmpretrain':
        assert np.array_equal(
            inferencer(content)[0]['pred_scores'], found['pred_scores']
        )
    cfg = read_config(config)
    model, _ = build_model(cfg, checkpoint)
    model.eval()
    samples = [s.data for s in samples_of_files(cfg, [file])]
    (output,) = model.test_step(collate(cfg, samples))
    expected = task_of_config(cfg).protocol.result(output, None)['pred_scores']
    scores = torch.from_numpy(found['pred_scores'])
    assert_equal_but_for_rounding(scores, torch.from_numpy(expected), model)
