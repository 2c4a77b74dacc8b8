"""CMUNeXt gives what its own code gave on the same weights, and LLM4Seg's with it.

``tools/dev/released/cmunext.py`` stored it.
"""

import cv2
import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, MODELS, DefaultScope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from llm4seg import LesionIoU
from llm4seg.converters import CMUNEXT_RULES, convert_medical
from lm4ve.runner.config import read_config
from tests.helpers.closeness import rounding_bound
from tests.helpers.stored_results import (
    assert_equal_rows,
    marks_of,
    our_names,
    read_stored,
    released_state,
)
from tests.helpers.tasks import FOLDERS

STORED = read_stored('cmunext')
DIMS = [4, 6, 8, 10, 16]


def random_masks():
    """As the script draws them; the last has no lesion."""
    masks = np.random.default_rng(3).random((4, 1, 32, 32)) < 0.3
    masks[3] = False
    return torch.from_numpy(masks).long()


def build(cfg):
    with DefaultScope.overwrite_default_scope('mmseg'):
        return MODELS.build(cfg)


def test_network_gives_released_logits_loss_and_gradients():
    model_cfg = read_config(FOLDERS['medical'] / 'cmunext_none_busi.py').model
    model_cfg.backbone.dims = DIMS
    model_cfg.decode_head.in_channels = DIMS
    model = build(model_cfg).double()
    state = released_state(STORED['network.shapes'])
    model.load_state_dict(convert_medical(state, input_scale=1.0), strict=True)
    x = torch.from_numpy(np.random.default_rng(4).standard_normal((4, 3, 32, 32)))
    logits = model.eval()(x).detach()[..., ::4, ::4]
    assert_equal_rows(logits, STORED['network.logits'], 1e-7)
    samples = []
    for mask in random_masks():
        samples.append(SegDataSample(gt_sem_seg=PixelData(data=mask)))
    losses = model.train()(x, samples, mode='loss')
    loss = losses['decode.loss_ce'] + losses['decode.loss_dice']
    loss.backward()
    # Dice is computed in float32, of 1,024 pixels a picture.
    bound = rounding_bound(torch.float32, [1024])
    assert_equal_rows(loss.detach(), STORED['network.loss'], bound)
    names = our_names(STORED['network.gradient_names'], CMUNEXT_RULES)
    assert len(names) == len([*model.parameters()])
    assert_equal_rows(marks_of(model, names), STORED['network.gradients'], bound)


def test_network_and_loss_get_the_released_picture_and_mask(tmp_path):
    generator = np.random.default_rng(5)
    picture = generator.integers(0, 256, (100, 120, 3), np.uint8)
    mask = 255 * (generator.random((100, 120)) < 0.3).astype(np.uint8)
    for folder, pixels in (('images', picture), ('masks/0', mask)):
        file = tmp_path / folder / 'a.png'
        file.parent.mkdir(parents=True)
        cv2.imwrite(str(file), pixels)
    (tmp_path / 'busi_val.txt').write_text('a\n')
    cfg = read_config(FOLDERS['medical'] / 'cmunext_llama-3.2-1b-released_busi.py')
    # Without what is random, the pipeline of the training is that of their validation.
    dataset_cfg = cfg.train_dataloader.dataset
    dataset_cfg.update(data_root=str(tmp_path), ann_file='busi_val.txt')
    steps = []
    for step in dataset_cfg.pipeline:
        if step.type not in ('lm4ve.RandomRotate90', 'RandomFlip'):
            steps.append(step)
    dataset_cfg.pipeline = steps
    with DefaultScope.overwrite_default_scope('mmseg'):
        dataset = DATASETS.build(dataset_cfg)
    preprocessor = build(cfg.model.data_preprocessor)
    data = preprocessor(pseudo_collate([dataset[0]]), training=True)
    image = data['inputs'][0] * cfg.model.backbone.backbone.input_scale
    labels = data['data_samples'][0].gt_sem_seg.data[0]
    np.testing.assert_allclose(
        image[:, ::8, ::8], STORED['pipeline.image'], rtol=1e-5, atol=1e-8
    )
    np.testing.assert_array_equal(labels[::8, ::8], STORED['pipeline.mask'])


def test_metric_scores_as_the_released_one():
    logits = torch.from_numpy(np.random.default_rng(2).standard_normal((4, 1, 32, 32)))
    logits[3] = -1
    scores = []
    for found, truth in zip(logits > 0, random_masks(), strict=True):
        metric = LesionIoU(iou_metrics=['mIoU', 'mDice'])
        metric.dataset_meta = dict(classes=('background', 'lesion'))
        sample = dict(pred_sem_seg=dict(data=found.long()), gt_sem_seg=dict(data=truth))
        metric.process({}, [sample])
        measured = metric.evaluate(1)
        scores.append([measured['lesion/IoU'] / 100, measured['lesion/Dice'] / 100])
    np.testing.assert_allclose(scores, STORED['metrics.scores'], rtol=1e-7)
