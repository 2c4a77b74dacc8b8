"""A model whose head cannot read what its neck gives is refused when it is built."""

import pytest
import torch
from torch import nn

pytest.importorskip('mmpretrain')
from mmengine.registry import MODELS, DefaultScope  # noqa: E402

from lm4ve.errors import UserError  # noqa: E402
from lm4ve.necks.head_fit import check_head  # noqa: E402
from tests.helpers.models import BLOCK  # noqa: E402

WIDTH = 16
POOLING = dict(type='GlobalAveragePooling')
LINEAR = dict(type='LinearClsHead', num_classes=3, in_channels=WIDTH)
VIT = dict(LINEAR, type='VisionTransformerClsHead')
HIDDEN = dict(LINEAR, type='StackedLinearClsHead', mid_channels=[8], dropout_rate=0.5)
#: It reads a map.
CSRA = dict(LINEAR, type='CSRAClsHead', num_heads=1, lam=0.1)
#: A neck that gives what it gets.
NOTHING = dict(type='torch.nn.Identity')
#: It returns a dict.
TASKS = dict(type='MultiTaskHead', task_heads=dict(a=LINEAR))


class WithClassToken(nn.Module):
    """A backbone of which nothing but the class token's name is read."""

    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1))


def build(head: dict | None, *followers: dict, **neck):
    """Build mmpretrain's classifier with a neck, others after it, and a head."""
    neck = dict(type='LLMBlockNeck', in_channels=WIDTH, block=BLOCK, **neck)
    necks: dict | list = neck
    if followers:
        necks = [neck, *followers]
    fields = dict(backbone=WithClassToken(), neck=necks, head=head)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(dict(type='ImageClassifier', **fields))


VECTORS = [dict(out_type='cls_token'), dict(out_type='avg_featmap')]
FITTING = [
    *[(head, [], neck) for head in (LINEAR, VIT, HIDDEN, TASKS) for neck in VECTORS],
    (LINEAR, [POOLING], {}),
    (CSRA, [], {}),
    (TASKS, [], {}),
    (None, [], {}),
]


@pytest.mark.parametrize('head, followers, neck', FITTING, ids=str)
def test_head_that_reads_its_neck_is_accepted_and_not_changed(head, followers, neck):
    model = build(head, *followers, **neck)
    random_state = torch.random.get_rng_state()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    check_head(model)
    assert torch.equal(torch.random.get_rng_state(), random_state)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name])
    assert all(module.training for module in model.modules())


WRONG = [
    (LINEAR, [], {}, "LinearClsHead reads a vector .*Fix: model.neck.out_type='avg_"),
    (VIT, [], {}, "VisionTransformerClsHead reads a vector .*Fix: .*'cls_token'"),
    (HIDDEN, [], {}, 'StackedLinearClsHead reads a vector'),
    (CSRA, [], VECTORS[1], "CSRAClsHead reads a map.*Fix: model.neck.out_type='raw'"),
    (LINEAR, [POOLING], VECTORS[0], 'Fix: leave GlobalAveragePooling out, or model'),
    (
        CSRA,
        [NOTHING],
        VECTORS[0],
        "but Identity and CSRAClsHead after it read a map .*Fix: model.neck.0.out_type='r",
    ),
    (
        dict(LINEAR, in_channels=1000),
        [],
        VECTORS[0],
        'model.neck.in_channels=16 and model.head.in_channels=1000 differ. Fix: set both',
    ),
]


@pytest.mark.parametrize('head, followers, neck, words', WRONG, ids=str)
def test_head_that_cannot_read_its_neck_is_refused_with_the_fix(
    head, followers, neck, words
):
    with pytest.raises(UserError, match=words) as error:
        build(head, *followers, **neck)
    assert '\n' not in str(error.value)


def test_class_token_of_an_encoder_without_one_is_refused():
    fields = dict(
        type='LLMBlockNeck', in_channels=64, block=BLOCK, out_type='cls_token'
    )
    host = dict(type='ImageClassifier', backbone=dict(type='ResNet', depth=18))
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        with pytest.raises(UserError, match="ResNet has none. Fix: .*'avg_featmap'"):
            MODELS.build(dict(host, neck=fields, head=LINEAR))
