"""An epoch of repeated augmentation is that of the release, and a resume is exact with it."""

import pytest
import torch

pytest.importorskip('mmpretrain')
from mmpretrain.datasets.samplers import repeat_aug  # noqa: E402

from lm4ve.errors import UserError  # noqa: E402
from lm4ve.runner.command_line import build_runner  # noqa: E402
from lm4ve.tasks.image import ReleasedRepeatAugSampler  # noqa: E402
from tests.helpers.runner.random_run import EPOCHS, Killed, config  # noqa: E402
from tools.dev.check_resume import is_same, state_of  # noqa: E402


def released_indices(count: int, rank: int, processes: int, epoch: int) -> list[int]:
    """Return what RASampler of the release draws (image_classification/utils.py:157-175)."""
    generator = torch.Generator().manual_seed(epoch)
    order = torch.randperm(count, generator=generator).tolist()
    repeated = [index for index in order for _ in range(3)]
    of_process = count // 256 * 256 // processes
    return repeated[rank::processes][:of_process]


@pytest.mark.parametrize('processes, length', [(1, 1024), (3, 341), (4, 256)])
def test_an_epoch_is_that_of_the_release(processes, length, monkeypatch):
    samples = range(1080)  # RetinaMNIST
    for rank in range(processes):
        group = (rank, processes)
        monkeypatch.setattr(repeat_aug, 'get_dist_info', lambda group=group: group)
        sampler = ReleasedRepeatAugSampler(samples, multiple_of=256, seed=0)
        sampler.set_epoch(5)
        assert len(sampler) == length
        assert list(sampler) == released_indices(1080, rank, processes, epoch=5)


def test_fewer_samples_than_the_multiple_are_refused():
    with pytest.raises(UserError, match=r'multiple_of=256: .* 255 samples.* Fix: '):
        ReleasedRepeatAugSampler(range(255), multiple_of=256)


@pytest.mark.bitwise
def test_an_interrupted_run_equals_an_uninterrupted_one(tmp_path):
    """19 samples give 18, of which a batch of 4 drops two: 4 steps an epoch."""

    def train(name: str, **options) -> None:
        cfg = config(tmp_path / name, interval=2, **options)
        cfg.train_dataloader.drop_last = True
        cfg.train_dataloader.sampler = dict(
            type='lm4ve.ReleasedRepeatAugSampler', multiple_of=6
        )
        build_runner(cfg).train()

    train('whole')
    with pytest.raises(Killed):
        train('cut', kill=6)
    train('cut', resume=True)
    last = f'iter_{4 * EPOCHS}.pth'
    assert is_same(
        state_of(tmp_path / 'cut' / last), state_of(tmp_path / 'whole' / last)
    )
