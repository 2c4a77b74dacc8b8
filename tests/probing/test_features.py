"""Tokens of frozen encoders, computed once and stored."""

import json
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from lm4ve.errors import UserError
from lm4ve.probing.data import read_data
from lm4ve.probing.encoders import Encoder
from lm4ve.probing.features import RECORD, TOKENS, extract_features, pool_tokens
from tests.probing.test_data import write_folder

torch.set_num_threads(1)


def to_tensor(picture):
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255


def small_encoder(**options):
    """Return a convolution of 4 x 4 pixels: a map of 8 channels on pictures of 12 x 9."""
    torch.manual_seed(0)
    module = nn.Conv2d(3, 8, 4, stride=3).eval()
    return replace(Encoder('small', module, to_tensor, 'ab'), **options)


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return read_data(str(write_folder(tmp_path_factory.mktemp('data'), dict(a=15, b=15))))


def extract(encoder, data, cache, **options):
    return extract_features(encoder, data, cache, show_progress=False, **options)


class Counted(nn.Module):
    """Count the inputs; end like a killed process after so many."""

    def __init__(self, module, left=10**9):
        super().__init__()
        self.module, self.left = module, left

    def forward(self, x):
        self.left -= len(x)
        if self.left < 0:
            raise KeyboardInterrupt
        return self.module(x)


def test_features_are_the_encoders_outputs(data, tmp_path):
    encoder = small_encoder()
    before = {k: v.clone() for k, v in encoder.module.state_dict().items()}
    found = extract(encoder, data, tmp_path, tokens=0, batch_size=7)
    assert found.tokens.shape == (1, 30, 6, 8) and found.tokens.dtype == np.float16
    pictures = torch.stack([to_tensor(data[i]) for i in range(30)])
    expected = encoder.module(pictures).flatten(2).transpose(1, 2).detach().numpy()
    assert np.allclose(found.tokens[0], expected, atol=2e-3)
    assert all(torch.equal(v, before[k]) for k, v in encoder.module.state_dict().items())


def test_a_run_goes_on_where_another_was_stopped(data, tmp_path):
    whole = extract(small_encoder(), data, tmp_path / 'whole', batch_size=8)
    halting = small_encoder(module=Counted(small_encoder().module, 1 + 16))
    with pytest.raises(KeyboardInterrupt):
        extract(halting, data, tmp_path, batch_size=8)
    (record,) = tmp_path.glob(f'*/{RECORD}')
    assert [rows for rows, _ in json.loads(record.read_text())['batches']] == [8, 8]
    with open(record.with_name(TOKENS), 'r+b') as file:  # the disk lost the second batch
        file.seek(-3, 2)
        file.write(b'abc')
    counted = Counted(small_encoder().module)
    again = extract(small_encoder(module=counted), data, tmp_path, batch_size=8)
    assert 10**9 - counted.left == 1 + 22
    assert again.tokens.tobytes() == whole.tokens.tobytes()
    assert again.fingerprint == whole.fingerprint
    extract(small_encoder(module=Counted(None, 0)), data, tmp_path)  # computes nothing


def test_a_killed_process_loses_one_batch(data, tmp_path):
    encoder, calls = small_encoder(), []
    run = encoder.module.forward

    def forward(x):
        calls.append(x)
        if len(calls) == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return run(x)

    encoder.module.forward = forward
    if not (child := os.fork()):
        try:
            extract(encoder, data, tmp_path / 'killed', batch_size=8)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    (record,) = (tmp_path / 'killed').glob(f'*/{RECORD}')
    assert len(json.loads(record.read_text())['batches']) == 2
    whole, resumed = (
        extract(small_encoder(), data, tmp_path / name, batch_size=8) for name in ('w', 'killed')
    )
    assert whole.tokens.tobytes() == resumed.tokens.tobytes()


def test_views_beside_the_first_are_of_training_pictures(data, tmp_path):
    found = extract(small_encoder(), data, tmp_path, views=3, tokens=4)
    train, test = found.splits['train'], found.splits['test']
    assert found.tokens.shape[0] == 3 and np.isfinite(found.tokens[:, train]).all()
    assert np.isnan(found.tokens[1:, test]).all() and np.isfinite(found.tokens[0, test]).all()
    assert not np.array_equal(found.tokens[1, train], found.tokens[2, train])


@pytest.mark.parametrize(
    'output, match',
    [
        (lambda x: x.mean((2, 3)), r'no tokens but \[1, 3\]'),
        (lambda x: x * 1e6, 'values up to .*; float16 holds 65504'),
        (lambda x: x * np.nan, 'values up to nan'),
    ],
)
def test_outputs_that_are_no_features_are_refused(output, match, data, tmp_path):
    module = nn.Identity()
    module.forward = lambda x: output(x + 1)
    with pytest.raises(UserError, match=match):
        extract(small_encoder(module=module), data, tmp_path)


def test_pictures_found_damaged_later_leave_the_training_split(tmp_path):
    folder = write_folder(tmp_path / 'data', {}, train=6, val=5, test=5)
    path = folder / 'train/b/2.png'
    raw = bytearray(path.read_bytes())
    raw[60:80] = bytes(20)
    path.write_bytes(raw)  # both ends are whole
    data = read_data(str(folder))
    found = extract(small_encoder(), data, tmp_path)
    (lost,) = set(data.splits['train']) - set(found.splits['train'])
    assert data.items[lost] == path
    for item in ('test/a/0.png', 'val/a/0.png'):
        (folder / item).write_bytes(raw)
        with pytest.raises(UserError, match=f'damaged pictures in val or test: .*{item}'):
            extract(small_encoder(), read_data(str(folder)), tmp_path)


def test_pooling_is_by_place_and_keeps_class_tokens():
    x = torch.randn(2, 5, 8, 6)
    pooled = pool_tokens(x, 16).transpose(1, 2).unflatten(2, (4, 4))
    assert torch.allclose(pooled, nn.functional.adaptive_avg_pool2d(x, 4))
    tokens = torch.cat((torch.randn(2, 2, 5), x.flatten(2).transpose(1, 2)), 1)
    kept = pool_tokens(tokens, 16, prefix=2, grid=(8, 6))
    assert torch.equal(kept[:, :2], tokens[:, :2]) and torch.allclose(
        kept[:, 2:], pool_tokens(x, 16)
    )
    clip = torch.randn(2, 5, 2, 4, 4)
    halves = clip.flatten(2).unflatten(2, (16, 2)).mean(3).transpose(1, 2)
    assert torch.allclose(pool_tokens(clip, 16), halves, atol=1e-6)
    assert pool_tokens(x, 0).shape == (2, 48, 5) and pool_tokens(x, 1).shape == (2, 1, 5)
