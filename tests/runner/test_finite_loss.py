"""Training stops at a loss or weights that are not finite, before they are saved."""

from pathlib import Path

import pytest
import torch
from mmengine.model import BaseModel

from lm4ve.errors import UserError
from tests.runner.toy import make_runner


class Diverges(BaseModel):
    """Its loss, or only its gradient, is NaN from the third iteration on."""

    def __init__(self, only_gradient: bool) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.seen, self.only_gradient = 0, only_gradient

    def forward(self, inputs, data_samples=None, mode='loss'):
        self.seen += 1
        if self.only_gradient:
            root = (self.weight * 0 + float(self.seen <= 2)).sqrt()
            return dict(loss=(0 * root).sum())
        return dict(loss=self.weight.sum() + (float('nan') if self.seen > 2 else 0.0))


def train(tmp_path: Path, only_gradient: bool, **options) -> None:
    data = [dict(inputs=torch.ones(1)) for _ in range(4)]
    hooks = [dict(type='lm4ve.FiniteLossHook', **options)]
    make_runner(tmp_path, Diverges(only_gradient), data, 1, custom_hooks=hooks).train()


DIVERGING = [
    (False, 'iteration 3 .epoch 1. is nan'),
    (True, 'After iteration 3 .epoch 1. 1 weights are not finite'),
]


@pytest.mark.parametrize('only_gradient, words', DIVERGING)
def test_nan_stops_training_unsaved(tmp_path, only_gradient, words):
    with pytest.raises(UserError, match=words):
        train(tmp_path, only_gradient)
    assert not (tmp_path / 'iter_3.pth').exists()
    state = torch.load(tmp_path / 'iter_2.pth', weights_only=False)['state_dict']
    assert torch.isfinite(state['weight']).all()


@pytest.mark.parametrize('tolerate, only_gradient', [(-1, False), (2, False), (-1, True)])
def test_tolerated_losses_train_on(tmp_path, tolerate, only_gradient):
    train(tmp_path, only_gradient, tolerate=tolerate)
    assert (tmp_path / 'iter_4.pth').exists()
