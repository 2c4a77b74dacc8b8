"""Shapes, losses, votes and metrics of the classifier, by independent sums."""

import copy

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import MODELS

from lm4ve.errors import CheckpointError, UserError
from lm4ve.tasks import pointcloud as pc
from tests.helpers.pointcloud.tiny import TINY, build
from tests.helpers.tasks import CONFIGS


def samples(*labels):
    return [pc.PointCloudDataSample(gt_label=torch.tensor([label])) for label in labels]


def test_group_encoder_is_exact_for_many_points():
    """Batch norm over so many rows of ``[points, channels]`` is off by 1e-4 on a CPU."""
    encoder = pc.PointBERT(**TINY).encoder.train()
    groups = torch.randn(2, 1000, 64, 3) + 3
    exact = copy.deepcopy(encoder).double()
    expected = exact(groups.double()).float()
    torch.testing.assert_close(encoder(groups), expected, atol=5e-6, rtol=1e-5)


@pytest.mark.parametrize('kind', ['PointBERT', 'PointMAE'])
def test_loss_is_smoothed_cross_entropy(kind):
    model = build(kind).eval()
    inputs = torch.randn(2, 40, 3)
    logits = model(inputs)
    loss = model(inputs, samples(4, 1), mode='loss')['loss']
    assert bool(model.backbone.reduce_dim.state_dict()) == (kind == 'PointBERT')
    target = 0.8 * F.one_hot(torch.tensor([4, 1]), 5) + 0.2 / 5
    expected = -(target * logits.log_softmax(-1)).sum(-1).mean()
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize('name', ['scanobjectnn-bg', 'modelnet40-1k', 'modelnet40-8k'])
def test_smoothing_of_the_papers_configs_is_the_released_formula(name):
    head_cfg = Config.fromfile(CONFIGS / f'pointcloud/pointbert_{name}.py').model.head
    head = MODELS.build(head_cfg)
    classes = head_cfg.num_classes
    logits = torch.randn(6, classes, dtype=torch.float64)
    labels = torch.arange(6) * 2
    truth = F.one_hot(labels, classes).double()
    target = 0.8 * truth + 0.2 / (classes - 1) * (1 - truth)
    expected = -(target * logits.log_softmax(-1)).sum(-1).mean()
    torch.testing.assert_close(head.loss(logits, labels), expected)


def test_vote_is_the_mean_of_logits():
    vote = MODELS.build(dict(type='lm4ve.PointCloudVote', module=build()))
    logits = [9.0, 0, 0], [0, 6.0, 0], [0, 6.0, 0]
    draws = [samples(2)[0].set_prediction(torch.tensor(x)) for x in logits]
    # By mean logits: (3, 4, 0). A majority or the mean of scores may differ.
    (merged,) = vote.merge_preds([draws])
    assert merged.pred_label.tolist() == [1]
    assert merged.pred_logits.tolist() == [3, 4, 0]
    assert merged.gt_label.tolist() == [2]


def test_accuracy_overall_and_by_class():
    metric = pc.PointCloudAccuracy()
    for label, prediction in zip([0, 0, 0, 1, 2, 2], [0, 0, 1, 1, 0, 2], strict=True):
        sample = dict(gt_label=label, pred_label=prediction, pred_logits=torch.zeros(4))
        metric.process(None, [sample])
    result = metric.evaluate(6)
    assert result['accuracy/overall'] == pytest.approx(100 * 4 / 6)
    # The fourth class does not occur.
    assert result['accuracy/mean_class'] == pytest.approx(100 * (2 / 3 + 1 + 1 / 2) / 3)


def test_pretrained_encoder_goes_to_where_the_norm_is(tmp_path, checkpoints):
    source = build()
    with torch.no_grad():
        for p in source.parameters():
            p.normal_()
    path = str(tmp_path / 'p.pth')
    torch.save(dict(state_dict=source.state_dict()), path)
    block = dict(type='LLMBlock', checkpoint=checkpoints('llama'))
    neck = dict(type='LLMBlockNeck', in_channels=12, block=block)
    neck['norm_cfg'] = dict(type='LN', eps=1e-5)
    plain, with_block = build(), build(neck=neck)
    for model in (plain, with_block):
        model.checkpoint = path
        model.init_weights()
        for key, value in source.backbone.state_dict().items():
            if not key.startswith('norm.'):
                assert torch.equal(model.backbone.state_dict()[key], value)
        norm = model.backbone.norm or model.neck.norm
        assert torch.equal(norm.weight, source.backbone.norm.weight)
        assert not torch.equal(
            model.head.layers[0].weight, source.head.layers[0].weight
        )
    for changes, wrong in (
        (dict(depth=3), 'blocks.2'),
        (dict(num_heads=3, embed_dims=18), 'size'),
    ):
        other = build(**changes)
        other.checkpoint = path
        with pytest.raises((CheckpointError, RuntimeError), match=wrong):
            other.init_weights()


def test_groups_are_nearest_points_of_farthest_centers():
    points = torch.randn(2, 60, 3)
    centers, index = pc.group_points(points, 6, 5)
    picks = pc.farthest_point_sample(points, 6)
    assert torch.equal(centers, points[torch.arange(2)[:, None], picks])
    assert torch.equal(index, pc.nearest_neighbors(points, centers, 5))
    for sizes in ((4, 61), (61, 4)):
        with pytest.raises(UserError, match='=61 must be at most 60'):
            pc.group_points(points, *sizes)
