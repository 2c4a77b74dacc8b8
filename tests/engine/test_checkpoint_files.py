"""Checkpoint files: read without running code, loaded whole or refused by name."""

import argparse
import io

import pytest
import torch
from torch import nn

from lm4ve.engine.checkpoint_files import (
    load_strictly,
    read_checkpoint,
    read_state,
    write_checkpoint,
)
from lm4ve.errors import CheckpointError, UserError


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))


def test_written_and_read_again(tmp_path):
    whole = torch.arange(1000.0)
    size = write_checkpoint(dict(a=whole[:2]), dict(epoch=1), tmp_path / 'a.pth')
    assert size == (tmp_path / 'a.pth').stat().st_size < 3000  # the view alone
    assert read_checkpoint(tmp_path / 'a.pth')['meta'] == dict(epoch=1)
    assert torch.equal(read_state(tmp_path / 'a.pth')['a'], whole[:2])


@pytest.mark.parametrize('legacy', [False, True])
def test_states_of_training_scripts(tmp_path, legacy):
    torch.save(
        dict(model={'module.a': torch.ones(2)}, args=argparse.Namespace(lr=1)),
        tmp_path / 'a.pth',
        _use_new_zipfile_serialization=not legacy,
    )
    assert list(read_state(tmp_path / 'a.pth')) == ['a']


def test_files_that_cannot_be_used(tmp_path):
    path = tmp_path / 'a.pth'
    with pytest.raises(CheckpointError, match='does not exist'):
        read_checkpoint(path)
    write_checkpoint(dict(a=torch.ones(100)), {}, path)
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(CheckpointError, match='truncated or damaged'):
        read_checkpoint(path)
    torch.save(dict(model=io.StringIO()), path)
    with pytest.raises(CheckpointError, match="'_io.StringIO'.*run code"):
        read_checkpoint(path)
    torch.save([1], path)
    with pytest.raises(CheckpointError, match='holds a list'):
        read_checkpoint(path)
    torch.save(dict(epoch=1), path)
    with pytest.raises(UserError, match='no model state.*epoch'):
        read_state(path)


@pytest.mark.parametrize(
    'change, found',
    [
        (lambda s: s.pop('1.bias'), r'lacks 1 tensor\(s\) \(1.bias\)'),
        (lambda s: s.update(extra=s['1.bias']), r'has 1 more \(extra\)'),
        (
            lambda s: s.update({'0.weight': torch.ones(5, 2)}),
            r'size mismatch for 0.weight.*\[5, 2\].*\[3, 2\]',
        ),
    ],
    ids=['missing', 'unknown', 'shape'],
)
def test_a_state_that_does_not_fit_is_refused_by_name(change, found):
    state = model().state_dict()
    change(state)
    with pytest.raises(CheckpointError, match=f"'a.pth' is of another model.*{found}"):
        load_strictly(model(), state, "'a.pth'")


def test_a_state_that_fits_is_loaded():
    ours, theirs = model(), model()
    state = theirs.state_dict()
    load_strictly(ours, state, "'a.pth'")
    assert torch.equal(ours[0].weight, theirs[0].weight)
    del state['1.bias']
    load_strictly(ours, state, "'a.pth'", optional=('.bias',))
