"""Files that do not fit are refused, metrics agree with counts by hand, and models are used."""

import json
import math
from collections import Counter

import numpy as np
import pytest
import torch
from mmcv.transforms import RandomFlip

import llm4seg as m
import lm4ve
from llm4seg.structures import VolumeDataSample
from lm4ve.apis.models import in_scope_of
from lm4ve.cost.step import cost_of_step
from lm4ve.errors import UserError
from lm4ve.release.exporting import export_model
from lm4ve.runner.config import read_config
from lm4ve.tasks.base.inference import FileInferencer
from tests.helpers.closeness import assert_equal_but_for_rounding
from tests.helpers.hosts import write_picture
from tests.helpers.medical import files
from tests.helpers.tasks import FOLDERS

VOXELS = np.zeros((6, 5, 4), np.float32)
SAME = (1.0, 1.0, 2.0)
#: What the message has, the image, the label and the sides of its voxels.
WRONG_VOLUMES = [
    ('channels=1', np.zeros((6, 5, 4, 2), np.float32), None, SAME),
    (r'labels 2\.0', VOXELS, VOXELS + 2, SAME),
    (r'labels 0\.5', VOXELS, VOXELS + 0.5, SAME),
    (r'spacing \[1.0, 1.0, 3.0\]', VOXELS, VOXELS, (1.0, 1.0, 3.0)),
    ('orientation', VOXELS, VOXELS, (-1.0, 1.0, 2.0)),
    ('resample', VOXELS, VOXELS[:4], SAME),
    ('no numbers', VOXELS + np.inf, None, SAME),
]


@pytest.mark.parametrize(
    'words, image, label, voxel', WRONG_VOLUMES, ids=lambda x: str(x)[:12]
)
def test_a_volume_that_does_not_fit_is_refused(words, image, label, voxel, tmp_path):
    sample = dict(img_path=files.write_volume(tmp_path / 'image.nii.gz', image))
    if label is not None:
        sample['seg_path'] = files.write_volume(tmp_path / 'label.nii.gz', label, voxel)
    with pytest.raises(UserError, match=words):
        m.LoadVolume(channels=1, num_classes=2)(sample)


def test_a_volume_that_is_cut_off_is_refused(tmp_path):
    path = files.write_volume(tmp_path / 'image.nii.gz', VOXELS)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(UserError, match='cannot be read as NIfTI'):
        m.LoadVolume(channels=1, num_classes=2)(dict(img_path=path))


def test_a_dataset_json_without_labels_is_refused(tmp_path):
    (tmp_path / 'dataset.json').write_text(json.dumps(dict(training=[])))
    with pytest.raises(UserError, match='no dataset.json'):
        m.Decathlon(str(tmp_path))


def test_a_volume_with_a_channel_too_many_is_refused():
    model = m.VolumeViT(image_size=(8, 8, 4), patch_size=(4, 4, 2))  # of one channel
    with pytest.raises(UserError, match='takes volumes'):
        model(torch.zeros(1, 2, 8, 8, 4))


@pytest.mark.parametrize('ratios', [(0.5, 0.25, 0.25), (0.4, 0.4, 0.2)])
def test_each_volume_is_in_one_part(ratios, tmp_path):
    files.write_decathlon(tmp_path)
    paths = []
    for split in ('train', 'val', 'test'):
        dataset = m.Decathlon(str(tmp_path), split, ratios)
        for i in range(len(dataset)):
            paths.append(dataset.get_data_info(i)['img_path'])
    assert len(paths) == len(set(paths)) == 6


@pytest.mark.parametrize('metainfo', [dict(), dict(highest_label=2)])
@pytest.mark.parametrize('mode', ['loss', 'predict'])
def test_labels_beyond_the_classes_of_a_model_are_refused(mode, metainfo):
    vit = dict(
        type='lm4ve.VolumeViT', image_size=(8, 8, 4), patch_size=(4, 4, 2), depth=1
    )
    model = m.VolumeSegmentor(vit, num_classes=3)
    sample = VolumeDataSample(metainfo=metainfo)
    sample.gt_seg = torch.full((8, 8, 4), 2)
    model(torch.zeros(1, 1, 8, 8, 4), [sample], mode)
    with pytest.raises(UserError, match='model.num_classes=2'):
        m.VolumeSegmentor(vit, num_classes=2)(
            torch.zeros(1, 1, 8, 8, 4), [sample], mode
        )


def volume_scores(found, truth):
    """Return the metrics of a predicted volume ``[H, W, D]``, whose slices are 2 mm apart."""
    metric = m.VolumeMetric()
    sample = dict(pred_seg=found, gt_seg=truth, num_classes=2, spacing=[1.0, 1.0, 2.0])
    metric.process(None, [sample])
    return metric.compute_metrics(metric.results)


def test_volume_scores_are_in_millimeters_and_count_what_is_missed():
    none, truth, found = torch.zeros(3, 8, 8, 8).long().unbind()
    truth[2:5, 2:5, 2:5] = 1
    found[2:5, 2:5, 3:6] = 1  # a voxel away, which is 2 mm
    scores, missed = volume_scores(found, truth), volume_scores(none, truth)
    assert scores['Dice'] == pytest.approx(100 * 2 * 18 / 54)
    assert scores['HD95'] == pytest.approx(2.0) and scores['missed'] == 0
    assert volume_scores(truth, truth)['NSD'] == 100 > scores['NSD']
    assert missed == dict(Dice=0, NSD=0, missed=100)


def test_white_pixels_are_the_lesion_and_other_masks_refused():
    read = m.BinaryMask()
    for mask, expected in (
        (np.uint8([[0, 255]]), [[0, 1]]),
        (np.uint8([[0, 1]]), [[0, 1]]),
    ):
        assert read(dict(gt_seg_map=mask))['gt_seg_map'].tolist() == expected
    with pytest.raises(UserError, match='values up to 3'):
        read(dict(gt_seg_map=np.uint8([[0, 3]]), seg_map_path='a.png'))


def test_pictures_turn_as_often_as_in_llm4segs_code():
    """RandomRotate90 and Flip of albumentations, each in half of the pictures."""
    cfg = read_config(FOLDERS['medical'] / 'cmunext_none_busi.py')
    steps = cfg.train_dataloader.dataset.pipeline
    turn, mirror = (
        s for s in steps if s.type in ('lm4ve.RandomRotate90', 'RandomFlip')
    )
    pipeline = [m.RandomRotate90(turn.prob)]
    pipeline.append(RandomFlip(prob=mirror.prob, direction=mirror.direction))
    picture = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    names = {}
    for flipped, name in ((picture, 'turned'), (picture[:, ::-1], 'mirrored')):
        for quarters in range(4):
            pixels = np.rot90(flipped, quarters)
            names[pixels.tobytes()] = f'{name} {90 * quarters}'
    expected = {'turned 0': 1 / 3, 'turned 180': 1 / 6}
    expected |= {'turned 90': 1 / 12, 'turned 270': 1 / 12}
    expected |= {'mirrored 0': 1 / 8, 'mirrored 180': 1 / 8}
    expected |= {'mirrored 90': 1 / 24, 'mirrored 270': 1 / 24}
    counts = Counter()
    draws = 6000
    np.random.seed(0)
    for _ in range(draws):
        mask = picture[..., 0]
        results = dict(img=picture, gt_seg_map=mask, seg_fields=['gt_seg_map'])
        for transform in pipeline:
            results = transform(results)
        counts[names[results['img'].tobytes()]] += 1
        assert (results['img'][..., 0] == results['gt_seg_map']).all()
    for name, share in expected.items():
        deviation = math.sqrt(draws * share * (1 - share))
        assert abs(counts[name] - draws * share) < 5 * deviation, name


def test_medmnist_executes_nothing_and_refuses_damage(tmp_path):
    path = files.write_medmnist(tmp_path, 'retinamnist', 5, count=20)
    good, data = path.read_bytes(), dict(np.load(path))
    cut, pickled = (
        good[: len(good) // 2],
        {**data, 'train_labels': np.array([{}], dtype=object)},
    )
    beyond = {**data, 'train_labels': data['train_labels'] + 1}
    for content, words in (
        (cut, 'no file'),
        (pickled, 'allow_pickle'),
        (beyond, 'label 5'),
    ):
        path.write_bytes(content) if isinstance(content, bytes) else np.savez(
            path, **content
        )
        with pytest.raises(UserError, match=words):
            m.MedMNIST(str(tmp_path), 'retinamnist')
    with pytest.raises(UserError, match='Did you mean'):
        m.MedMNIST(str(tmp_path), 'retinamnst')


@pytest.mark.parametrize('flag', ['retinamnist', 'breastmnist', 'chestmnist'])
def test_medmnist_is_scored_by_its_own_evaluator(flag, tmp_path):
    from medmnist import Evaluator

    labels = 14 if flag == 'chestmnist' else 1
    classes, truth = (
        5 if flag == 'retinamnist' else 2,
        'gt_label' if labels == 1 else 'gt_score',
    )
    files.write_medmnist(tmp_path, flag, classes, count=20, labels=labels)
    dataset, metric = m.MedMNIST(str(tmp_path), flag, 'test'), m.MedMNISTMetric()
    metric.dataset_meta, scores = dataset.metainfo, torch.rand(12, max(classes, labels))
    for row, score in zip(dataset, scores, strict=True):
        label = torch.as_tensor(row[truth]).view(-1)
        metric.process(None, [{truth: label, 'pred_score': score}])
    auc, acc = Evaluator(flag, 'test', root=str(tmp_path)).evaluate(
        scores.double().numpy()
    )
    found = metric.compute_metrics(metric.results)
    assert found == dict(AUC=pytest.approx(100 * auc), ACC=pytest.approx(100 * acc))
    with pytest.raises(UserError, match='num_classes=15'):  # a head of another set
        metric.process(None, [{truth: label, 'pred_score': torch.rand(15)}])


VOLUME, VIVIT = (
    'vit3d_llama-3.1-8b_brain-tumour.py',
    'vivit_llama-inner_fracturemnist3d.py',
)


def test_a_volume_is_segmented_on_the_grid_of_the_pipeline(shrinker, tmp_path):
    voxels = np.random.default_rng(0).random((20, 18, 16, 4), np.float32)
    path = files.write_volume(tmp_path / 'a.nii.gz', voxels)
    (found,) = lm4ve.apis.inference(shrinker.load(VOLUME, tmp_path), None, [path])
    assert found['pred_seg'].shape == (16, 16, 8) and found['spacing'] == [
        1.25,
        1.125,
        4.0,
    ]
    assert found['milliliters'] == {
        '1': pytest.approx(found['pred_seg'].sum() * 5.625e-3)
    }


@pytest.mark.bitwise
def test_an_array_of_medmnist_is_read_as_the_data_set_reads_it(shrinker, tmp_path):
    cfg = shrinker.load(VIVIT, tmp_path)
    sample = m.MedMNIST(
        cfg.test_dataloader.dataset.data_root, 'fracturemnist3d', 'test'
    )[0]
    with in_scope_of(cfg):
        ask = FileInferencer(cfg)
        (found,) = ask(sample['img'], out_dir=tmp_path)
    logits = ask.model(torch.from_numpy(sample['img'])[None] / 255)
    scores = torch.as_tensor(found['pred_scores'])
    assert_equal_but_for_rounding(scores, logits.softmax(1)[0], ask.model)
    assert (tmp_path / 'array.png').exists()


def test_mmsegmentation_segments_a_picture(shrinker, tmp_path):
    from mmseg.apis import inference_model, init_model

    path = tmp_path / 'a.png'
    write_picture(path, 1)
    cfg = shrinker.load('cmunext_llama-3.2-1b_busi.py', tmp_path)
    with in_scope_of(cfg):
        found = inference_model(init_model(cfg, device='cpu'), str(path))
    assert found.pred_sem_seg.data.shape[1:] == found.ori_shape
    with pytest.raises(UserError, match='mmseg.apis.inference_model'):
        lm4ve.apis.inference(cfg, None, [path])


@pytest.mark.parametrize('name', [VOLUME, VIVIT])
def test_models_of_volumes_are_exported(name, shrinker, tmp_path):
    cfg = config_in_float32(shrinker, name, tmp_path)
    path = tmp_path / 'model.pt2'
    with in_scope_of(cfg):
        # It compares what the file computes with the model, and raises if they differ.
        export_model(cfg, checkpoint='none', format='torch-export', path=path)
    assert path.is_file()


@pytest.mark.parametrize('name', [VOLUME, VIVIT])
def test_the_cost_of_a_step_grows_with_the_volumes_of_a_batch(name, shrinker, tmp_path):
    cfg = config_in_float32(shrinker, name, tmp_path)
    with in_scope_of(cfg):
        cost_of_one = cost_of_step(cfg, 1)
        cost_of_two = cost_of_step(cfg, 2)
    assert cost_of_two.backward > cost_of_one.backward > 0


def config_in_float32(shrinker, name, folder):
    """Load a small config whose block computes in float32, as precisely as an export must."""
    cfg = shrinker.load(name, folder)
    neck = cfg.model.get('neck') or cfg.model.backbone.neck
    neck.block.dtype = 'float32'
    return cfg
