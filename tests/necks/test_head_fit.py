"""A model whose head cannot read what its neck gives does not train."""

import pytest
import torch
from torch import nn

pytest.importorskip('mmpretrain')
from mmengine.registry import MODELS, DefaultScope  # noqa: E402
from mmpretrain.structures import DataSample  # noqa: E402

from lm4ve.errors import UserError  # noqa: E402
from tests.helpers.models import BLOCK  # noqa: E402

WIDTH = 16
SMOOTHED = dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original')
LINEAR = dict(type='LinearClsHead', num_classes=3, in_channels=WIDTH, loss=SMOOTHED)


class WithClassToken(nn.Module):
    """A backbone of which nothing but the class token's name is read."""

    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1))


def loss_of(shape: tuple[int, ...], **neck) -> torch.Tensor:
    """Return the loss of mmpretrain's classifier for features of a shape."""
    neck = dict(type='LLMBlockNeck', in_channels=WIDTH, block=BLOCK, **neck)
    fields = dict(type='ImageClassifier', backbone=WithClassToken(), head=LINEAR)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(dict(fields, neck=neck))
    samples = [DataSample().set_gt_label(1) for _ in range(shape[0])]
    return model.head.loss(model.neck((torch.randn(shape),)), samples)['loss']


def test_a_head_that_reads_its_neck_is_left_alone():
    assert loss_of((4, 4, WIDTH), out_type='avg_featmap').isfinite()


@pytest.mark.parametrize('samples', [1, 4])
def test_scores_of_tokens_are_refused_where_the_loss_would_broadcast_them(samples):
    words = r"scores of shape \[\d, 4, 3\].*Fix: model.neck.out_type='avg_featmap'"
    with pytest.raises(UserError, match=words) as error:
        loss_of((samples, 4, WIDTH))
    assert '\n' not in str(error.value)


def test_class_token_of_an_encoder_without_one_is_refused():
    fields = dict(
        type='LLMBlockNeck', in_channels=64, block=BLOCK, out_type='cls_token'
    )
    host = dict(type='ImageClassifier', backbone=dict(type='ResNet', depth=18))
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        with pytest.raises(UserError, match="ResNet has none. Fix: .*'avg_featmap'"):
            MODELS.build(dict(host, neck=fields, head=LINEAR))
