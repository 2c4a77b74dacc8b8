"""Tokens of frozen encoders, computed once and stored."""

import json
import os
import signal

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from lm4ve.errors import UserError
from lm4ve.study.pictures.data import read_data
from lm4ve.study.tokens.encoders import Encoder
from lm4ve.study.tokens.pooling import pool_tokens
from lm4ve.study.tokens.token_file import RECORD, TOKENS
from tests.helpers.pictures import break_tables, compute_features, write_folder


def to_tensor(picture):
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255


class Small(nn.Module):
    """A convolution of 4 x 4 pixels, a map of 8 channels; does something in its n-th call."""

    def __init__(self, number=0, act=None):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 4, 3)
        self.calls = 0
        self.number = number
        self.act = act

    def forward(self, x):
        self.calls += 1
        if self.calls == self.number:
            return self.act(x)
        return self.conv(x)


def extract(module, data, cache, **options):
    encoder = Encoder('small', module, to_tensor, 'ab')
    return compute_features(encoder, data, cache, **options)


@pytest.fixture(scope='module', autouse=True)
def small_batches():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('lm4ve.study.tokens.features.BATCH', 8)
        yield


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data')
    return read_data(str(write_folder(folder, _=dict(a=15, b=15))))


@pytest.fixture(scope='module')
def whole(data, tmp_path_factory):
    return extract(Small(), data, tmp_path_factory.mktemp('whole'), tokens=0)


def test_features_are_the_encoders_outputs(data, whole):
    pictures = torch.stack([to_tensor(data[i]) for i in range(30)])
    maps = Small().conv(pictures).detach()
    assert whole.tokens.shape == (30, 6, 8)
    assert whole.tokens.dtype == np.float16
    assert np.allclose(whole.tokens, maps.flatten(2).transpose(1, 2), atol=2e-3)


def killed(_):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_run_loses_one_batch(data, whole, tmp_path):
    child = os.fork()
    if child == 0:
        try:
            extract(Small(5, killed), data, tmp_path, tokens=0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
    (record,) = tmp_path.glob(f'*/{RECORD}')
    batches = json.loads(record.read_text())['batches']
    assert [rows for rows, _ in batches] == [8, 8]
    # The disk lost the second one, too.
    with open(record.with_name(TOKENS), 'r+b') as file:
        file.seek(-3, 2)
        file.write(b'abc')
    module = Small()
    again = extract(module, data, tmp_path, tokens=0)
    assert module.calls == 2 + 3
    assert again.fingerprint == whole.fingerprint
    assert again.tokens.tobytes() == whole.tokens.tobytes()
    module = Small()
    extract(module, data, tmp_path, tokens=0)
    assert module.calls == 0


@pytest.mark.parametrize(
    'content',
    [
        b'',
        b'\xff',
        b'[' * 100_000,
        b'[]',
        b'{"shape": "68", "batches": []}',
        b'{"shape": [6, 8], "batches": 5}',
        b'{"shape": [6, 8], "batches": [["8", 0]]}',
        b'{"shape": [6, 8], "batches": [[-8, 0]]}',
        b'{"shape": [6, 8], "batches": [[8e30, 0]]}',
        b'{"shape": [6, -8], "batches": [[8, 0]]}',
        b'{"shape": [1000000000000, 8], "batches": [[8000000000000, 0]]}',
    ],
)
def test_a_damaged_record_is_made_anew(content, data, whole, tmp_path):
    folder = extract(Small(), data, tmp_path, tokens=0).folder
    (folder / RECORD).write_bytes(content)
    again = extract(Small(), data, tmp_path, tokens=0)
    assert again.tokens.tobytes() == whole.tokens.tobytes()


def test_an_encoder_that_draws_at_random_is_refused(data, tmp_path):
    with pytest.raises(UserError, match='other tokens each time'):
        extract(Small(2, lambda x: torch.rand(len(x), 8, 2, 3)), data, tmp_path)


@pytest.mark.parametrize(
    'output, match',
    [
        (lambda x: x.mean((2, 3)), r'no tokens but \[1, 3\]'),
        (lambda x: x + 1e6, 'values up to .*; float16 holds 65504'),
        (lambda x: x * np.nan, 'values up to nan'),
    ],
)
def test_outputs_that_are_no_features_are_refused(output, match, data, tmp_path):
    with pytest.raises(UserError, match=match):
        extract(Small(1, output), data, tmp_path)


def write_broken(path):
    """Write a JPEG whose damage shows only when it is decoded."""
    Image.new('RGB', (12, 9)).save(path)
    break_tables(path)
    return path


def test_pictures_found_damaged_later_leave_their_split(tmp_path):
    classes = dict(a=5, b=6)
    folder = write_folder(tmp_path / 'data', train=classes, val=classes, test=classes)
    path = write_broken(folder / 'train/b/2.jpg')
    data = read_data(str(folder))
    kept = extract(Small(), data, tmp_path).data.splits
    (lost,) = set(data.splits['train']) - set(kept['train'])
    assert data.items[lost] == path
    write_broken(folder / 'val/a/2.jpg')
    write_broken(folder / 'test/a/2.jpg')
    with pytest.raises(
        UserError, match='2 damaged picture.s. in val or test: .*val/a.*test/a/2.jpg'
    ):
        extract(Small(), read_data(str(folder)), tmp_path)


@pytest.mark.parametrize('seed', range(3))
def test_pictures_found_damaged_later_leave_drawn_splits(seed, tmp_path):
    folder = write_folder(tmp_path / 'data', _=dict(a=15, b=15))
    broken = [write_broken(folder / f'a/broken{i}.jpg') for i in range(4)]
    for number, path in enumerate(broken):
        # Other contents, which may lie in several splits.
        with path.open('ab') as file:
            file.write(bytes([number]) + b'\xff\xd9')
    data = read_data(str(folder), seed=seed)
    found = extract(Small(), data, tmp_path).data
    kept = found.splits
    before = np.concatenate([*data.splits.values()])
    after = np.concatenate([*kept.values()])
    lost = set(before.tolist()) - set(after.tolist())
    assert {data.items[index] for index in lost} == set(broken)
    assert {name for name, _ in found.left_out} == {str(path) for path in broken}


def test_pooling_is_by_place_and_keeps_class_tokens():
    x = torch.randn(2, 5, 8, 6)
    pooled = pool_tokens(x, 16).transpose(1, 2).unflatten(2, (4, 4))
    assert torch.allclose(pooled, nn.functional.adaptive_avg_pool2d(x, 4))
    tokens = torch.cat((torch.randn(2, 2, 5), x.flatten(2).transpose(1, 2)), 1)
    kept = pool_tokens(tokens, 16, prefix=2, grid=(8, 6))
    assert torch.equal(kept[:, :2], tokens[:, :2])
    assert torch.allclose(kept[:, 2:], pool_tokens(x, 16))
    clip = torch.randn(2, 5, 2, 4, 4)
    halves = clip.flatten(2).unflatten(2, (16, 2)).mean(3).transpose(1, 2)
    assert torch.allclose(pool_tokens(clip, 16), halves, atol=1e-6)
