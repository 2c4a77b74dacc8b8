"""A block that is a branch beside the identity, in training only."""

import pytest
import torch
import torch.nn.functional as F

from lm4ve.commands.train import main as train
from lm4ve.errors import CheckpointError, UserError
from lm4ve.necks import LLMBlockNeck
from lm4ve.runner.hooks import NeckHook
from tests.helpers.tasks import ROOT
from tests.necks.test_llm_block_neck import C, make, plain


@pytest.mark.parametrize(
    'schedule, weights',
    [('cosine', (2.0, 1.0, 0.0)), ('linear', (2.0, 1.0, 0.0)), ('constant', (2.0, 2.0, 0.0))],
)
def test_training_adds_the_block_with_a_weight_that_falls_to_zero(schedule, weights):
    neck = make(branch=dict(weight=2.0, end=0.5, schedule=schedule), norm_cfg=None)
    x = torch.randn(2, 5, C)
    for progress, weight in zip((0.0, 0.25, 0.5), weights, strict=True):
        neck.set_progress(progress)
        torch.testing.assert_close(neck(x), x + weight * plain(neck, x))


def test_evaluation_leaves_the_block_out():
    neck = make(branch=True, out_type='avg_featmap').eval()
    ran = []
    neck.block.register_forward_hook(lambda *_: ran.append(True))
    x = torch.randn(2, 5, C)
    expected = F.layer_norm(x.mean(1), (C,), neck.norm.weight, neck.norm.bias, 1e-6)
    torch.testing.assert_close(neck(x), expected)
    assert not ran
    with neck.observe():
        torch.testing.assert_close(neck(x), expected)
    assert ran


def test_a_branch_that_rests_gives_every_parameter_a_gradient_of_zeros():
    neck = make(branch=True)
    neck.set_progress(0.9)
    neck(torch.randn(2, 5, C)).sum().backward()
    for mapper in (neck.mapper_in, neck.mapper_out):
        assert mapper.weight.grad.abs().max() == 0


def test_a_branch_reads_drawn_tokens():
    neck = make(branch=True, train_queries=0.5, out_type='avg_featmap', norm_cfg=None)
    neck.set_progress(0.0)
    x = torch.randn(2, 8, C)
    torch.manual_seed(3)
    drawn = neck.train_only.queries.draw(x, None, 0, 0.0)[..., None].expand(-1, -1, C)
    torch.manual_seed(3)
    expected = x.gather(1, drawn).mean(1) + plain(neck, x).gather(1, drawn).mean(1)
    torch.testing.assert_close(neck(x), expected)


def test_a_checkpoint_with_the_block_left_out_does_not_pass_for_one_with_it():
    state = make(branch=True).state_dict()
    with pytest.raises(CheckpointError, match=r'model.neck.branch.*left out in evaluation'):
        make().load_state_dict(state)


@pytest.mark.parametrize(
    'fields, message',
    [
        (dict(branch=3), 'neck.branch=3 must be of type bool or dict'),
        (dict(branch=dict(gain=1)), 'gain'),
        (dict(branch=dict(end=0)), 'neck.branch.end=0 must be'),
        (dict(branch=dict(weight=float('inf'))), 'neck.branch.weight=inf must be'),
        (dict(branch=dict(weight='1')), "weight='1' must be of type"),
        (dict(branch=dict(schedule='step')), 'neck.branch.schedule'),
        (dict(branch=True, residual='outer'), 'neck.residual with neck.branch'),
    ],
)
def test_fields_without_sense_are_refused(fields, message):
    with pytest.raises((UserError, TypeError), match=message):
        make(**fields)


def test_our_runners_say_how_far_training_has_come(tmp_path, monkeypatch):
    pytest.importorskip('mmpretrain')
    told = []
    monkeypatch.setattr(
        LLMBlockNeck,
        'set_progress',
        lambda self, p, real=LLMBlockNeck.set_progress: (told.append(p), real(self, p)),
    )
    config = ROOT / 'configs/lm4ve/vit-demo_minilm_digits.py'
    options = 'model.neck.branch=True', 'model.neck.out_type=avg_featmap', 'train_cfg.max_epochs=3'
    short = 'train_dataloader.dataset.indices=128', 'model.head.in_channels=64'
    arguments = '--work-dir', str(tmp_path), '--cfg-options', *options, *short
    train([str(config), *arguments])
    assert told == pytest.approx([i / 5 for i in range(6)])
    assert NeckHook.priority == 'VERY_HIGH'
