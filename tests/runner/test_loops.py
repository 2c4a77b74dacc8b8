"""Training loops refuse a dataloader that gives no batch; see test_resume.py for the rest."""

import pytest
import torch
from mmengine.model import BaseModel
from torch import nn
from torch.utils.data import Dataset

from lm4ve.errors import UserError
from tests.helpers.runner.toy import make_runner

LOOPS = [
    dict(type='lm4ve.EpochLoop', max_epochs=1),
    dict(type='lm4ve.IterLoop', max_iters=2),
]


class Model(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, inputs, data_samples=None, mode='loss'):
        return dict(loss=self.layer(torch.stack(inputs)).mean())


class Samples(Dataset):
    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict:
        return dict(inputs=torch.ones(1))


def runner(folder, count: int, train_cfg: dict, **loader):
    data = Samples(count)
    built = make_runner(folder, Model(), data, batch_size=4, train_cfg=train_cfg)
    built._train_dataloader.update(loader)
    return built


EMPTY = [
    (
        3,
        dict(drop_last=True),
        'nothing would train, since 3 samples .* Fix: .*batch_size=3',
    ),
    (
        0,
        dict(sampler=dict(type='DefaultSampler', shuffle=False)),
        'dataset has no samples',
    ),
]


@pytest.mark.parametrize('train_cfg', LOOPS)
@pytest.mark.parametrize('count, loader, words', EMPTY)
def test_training_without_a_batch_is_refused(count, loader, words, train_cfg, tmp_path):
    with pytest.raises(UserError, match=f'^train_dataloader.*{words}'):
        runner(tmp_path, count, train_cfg, **loader).train()


def test_endless_sampler_fills_a_batch_from_few_samples(tmp_path):
    sampler = dict(type='InfiniteSampler')
    built = runner(tmp_path, 3, LOOPS[1], drop_last=True, sampler=sampler)
    built.train()
    assert built.iter == 2
