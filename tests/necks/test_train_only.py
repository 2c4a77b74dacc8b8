"""What a neck does in training only: a branch beside the identity, and a part of the tokens."""

import pytest
import torch
import torch.nn.functional as F

from lm4ve.commands.train import main as train
from lm4ve.errors import CheckpointError, UserError
from lm4ve.necks import LLMBlockNeck
from lm4ve.necks.parts.draw_tokens import draw_tokens
from tests.helpers.necks.tiny import C, make
from tests.helpers.tasks import ROOT


def plain(neck, tokens, mask=None):
    """Mapper, block and mapper of all tokens."""
    return neck.mapper_out(neck.block(neck.mapper_in(tokens), padding_mask=mask))


def draws(x, mask=None, extra=0, fraction=0.5):
    """The indices that the next forward pass after this seed draws."""
    torch.manual_seed(3)
    index = draw_tokens(x, mask, extra, fraction)
    torch.manual_seed(3)
    return index


@pytest.mark.parametrize(
    'schedule, half', [('cosine', 1.0), ('linear', 1.0), ('constant', 2.0)]
)
def test_a_branch_has_a_weight_that_falls_to_zero(schedule, half):
    neck = make(branch=dict(weight=2.0, end=0.5, schedule=schedule), norm_cfg=None)
    x = torch.randn(2, 5, C)
    for progress, weight in ((0.0, 2.0), (0.25, half), (0.5, 0.0)):
        neck.set_progress(progress)
        torch.testing.assert_close(neck(x), x + weight * plain(neck, x))
    neck(x).sum().backward()  # at rest, every parameter has a gradient of zeros
    for mapper in (neck.mapper_in, neck.mapper_out):
        assert mapper.weight.grad.abs().max() == 0


def test_evaluation_leaves_a_branch_out():
    neck = make(branch=True, out_type='avg_featmap').eval()
    calls = []
    neck.block.register_forward_hook(lambda *_: calls.append(True))
    x = torch.randn(2, 5, C)
    expected = F.layer_norm(x.mean(1), (C,), neck.norm.weight, neck.norm.bias, 1e-6)
    torch.testing.assert_close(neck(x), expected)
    assert not calls
    with neck.observe():
        torch.testing.assert_close(neck(x), expected)
    assert calls
    with pytest.raises(
        CheckpointError, match=r'model.neck.branch.*left out in evaluation'
    ):
        make().load_state_dict(neck.state_dict())


def test_one_token_of_each_stretch_is_drawn_equally_often():
    drawn = draw_tokens(torch.zeros(6000, 10, C), None, 0, 0.3)
    assert drawn.shape == (6000, 3)
    for i, stretch in enumerate(([0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9])):
        assert set(drawn[:, i].tolist()) == set(stretch)
    share = torch.bincount(drawn.flatten(), minlength=10) / 6000
    torch.testing.assert_close(share, torch.full((10,), 0.3), atol=0.03, rtol=0)


@pytest.mark.parametrize('low_rank', ['auto', 'off'])
def test_drawn_tokens_have_their_values_among_all(low_rank):
    neck = make(train_queries=0.4, norm_cfg=None, num_extra_tokens=1, low_rank=low_rank)
    x = torch.randn(2, 6, C)
    places = torch.cat(
        [torch.zeros(2, 1).long(), draws(x, extra=1, fraction=0.4)], dim=1
    )
    assert places.shape == (2, 1 + 2) and (places[:, 1:] > 0).all()
    torch.testing.assert_close(
        neck(x), plain(neck, x).take_along_dim(places[..., None], 1)
    )
    with neck.observe():
        torch.testing.assert_close(neck(x), plain(neck, x))
    torch.testing.assert_close(neck.eval()(x), plain(neck, x))


@pytest.mark.parametrize('branch', [False, True])
def test_the_mean_is_over_drawn_tokens_without_padding(branch):
    neck = make(train_queries=0.5, norm_cfg=None, out_type='avg_featmap', branch=branch)
    neck.set_progress(0.0)
    x = torch.randn(3, 6, C)
    mask = torch.zeros(3, 6, dtype=torch.bool)
    mask[0, 2:] = mask[1, :5] = True
    drawn = draws(x, mask)
    assert not mask.gather(1, drawn).any()
    expected = plain(neck, x, mask=mask) + (x if branch else 0)
    expected = expected.take_along_dim(drawn[..., None], 1).mean(1)
    torch.testing.assert_close(neck(x, padding_mask=mask), expected)


def test_the_part_grows_with_the_progress_of_training():
    neck = make(train_queries=dict(fraction=(0.25, 1.0)))
    x = torch.randn(2, 8, C)
    with pytest.raises(UserError, match=r'NeckProgressHook.*set_progress'):
        neck(x)
    for progress, tokens in ((0.0, 2), (0.5, 5), (1.0, 8)):
        neck.set_progress(progress)
        assert neck(x).shape[1] == tokens


REFUSED = [
    (dict(branch=3), 'neck.branch=3 must be of type bool or dict'),
    (dict(branch=dict(end=0)), 'neck.branch.end=0 must be'),
    (dict(branch=dict(weight=float('inf'))), 'neck.branch.weight=inf must be'),
    (dict(branch=dict(schedule='step')), 'neck.branch.schedule'),
    (dict(branch=True, residual='outer'), 'neck.residual with neck.branch'),
    (dict(train_queries=0), 'fraction=0 must be'),
    (dict(train_queries=dict(fraction=(0.1, 2))), 'fraction=2 must be'),
    (dict(train_queries=dict(part=0.1)), 'part'),
    (
        dict(train_queries=0.1, out_type='cls_token'),
        'neck.out_type with neck.train_queries',
    ),
]


@pytest.mark.parametrize('fields, message', REFUSED)
def test_fields_without_sense_are_refused(fields, message):
    with pytest.raises((UserError, TypeError), match=message):
        make(**fields)


HOSTS = [
    (torch.randn(1, 4, C), dict(queries=slice(0, 1))),
    (torch.randn(1, C, 2, 2), {}),
    (torch.randn(1, 4, C), dict(padding_mask=torch.zeros(1, 4, dtype=torch.bool))),
]


@pytest.mark.parametrize('x, options', HOSTS)
def test_hosts_that_need_certain_tokens_are_refused(x, options):
    with pytest.raises(UserError, match="fewer tokens back.*out_type='avg_featmap'"):
        make(train_queries=0.5)(x, **options)


def test_our_runners_set_the_progress_of_training(tmp_path, monkeypatch):
    pytest.importorskip('mmpretrain')
    steps, real = [], LLMBlockNeck.set_progress
    record = lambda self, p: (steps.append(p), real(self, p))  # noqa: E731
    monkeypatch.setattr(LLMBlockNeck, 'set_progress', record)
    config = ROOT / 'configs/lm4ve/vit-demo_minilm_digits.py'
    options = (
        'model.neck.branch=True',
        'model.neck.out_type=avg_featmap',
        'train_cfg.max_epochs=3',
    )
    short = 'train_dataloader.dataset.indices=128', 'model.head.in_channels=64'
    train([str(config), '--work-dir', str(tmp_path), '--cfg-options', *options, *short])
    assert steps == pytest.approx([i / 5 for i in range(6)])
