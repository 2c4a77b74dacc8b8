"""What a neck does in training only: a branch beside the identity."""

import pytest
import torch
import torch.nn.functional as F

from lm4ve.errors import CheckpointError, UserError
from lm4ve.necks import LLMBlockNeck
from tests.helpers.necks.tiny import C, make
from tests.helpers.tasks import ROOT
from tests.helpers.tools import run_lm4ve


def plain(neck, tokens):
    """Mapper, block and mapper of all tokens."""
    return neck.mapper_out(neck.block(neck.mapper_in(tokens)))


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
    with pytest.raises(CheckpointError, match='model.neck.branch=True'):
        make(out_type='avg_featmap').load_state_dict(neck.state_dict())


def test_a_branch_needs_the_progress_of_training():
    with pytest.raises(UserError, match=r'NeckProgressHook.*set_progress'):
        make(branch=True)(torch.randn(2, 5, C))


REFUSED = [
    (dict(branch=3), 'neck.branch=3 must be of type bool or dict'),
    (dict(branch=dict(end=0)), 'neck.branch.end=0 must be'),
    (dict(branch=dict(weight=float('inf'))), 'neck.branch.weight=inf must be'),
    (dict(branch=dict(schedule='step')), 'neck.branch.schedule'),
    (dict(branch=True, residual='outer'), 'neck.residual with neck.branch'),
]


@pytest.mark.parametrize('fields, message', REFUSED)
def test_fields_without_sense_are_refused(fields, message):
    with pytest.raises((UserError, TypeError), match=message):
        make(**fields)


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
    run_lm4ve(
        'train',
        [str(config), '--work-dir', str(tmp_path), '--cfg-options', *options, *short],
    )
    assert steps == pytest.approx([i / 5 for i in range(6)])
