"""Checkpoint files: read without running code, loaded whole or refused by name."""

import argparse
import tarfile

import numpy as np
import pytest
import torch
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

from lm4ve.errors import CheckpointError, UserError
from lm4ve.llm.torch_files import open_torch
from lm4ve.runner import checkpoint_files as files


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'a.pth'


def test_checkpoint_round_trip(path):
    whole = torch.arange(1000.0)
    size = files.write_checkpoint(dict(a=whole[:2]), dict(epoch=1), path)
    assert size == path.stat().st_size < 3000  # the view alone
    assert files.read_checkpoint(path)['meta'] == dict(epoch=1)
    assert torch.equal(files.read_state(path)['a'], whole[:2])


@pytest.mark.parametrize('is_zip', [False, True])
def test_foreign_training_state_is_found(path, is_zip):
    content = dict(model={'module.a': torch.ones(2)}, args=argparse.Namespace(lr=1))
    torch.save(content, path, _use_new_zipfile_serialization=is_zip)
    assert list(files.read_state(path)) == ['a']


class Pickled:
    """Written as numpy 1 and 2 write their objects, which are none here."""

    def __init__(self, function, *args) -> None:
        self.function = function
        self.args = args

    def __reduce__(self):
        return self.function, self.args


#: The ways in which a foreign checkpoint is read.
READERS = {
    'tools': files.read_checkpoint,
    'MMEngine': lambda path: CheckpointLoader.load_checkpoint(str(path)),
    'language models': open_torch,
}


@pytest.mark.parametrize('reader', ['tools', 'MMEngine'])
@pytest.mark.parametrize(
    'module', [None, b'numpy._core.multiarray', b'numpy.core.multiarray']
)
def test_numpy_numbers_become_plain(path, reader, module):
    # Point-BERT's pre-training files hold such scores, written with numpy 1 or 2.
    constructor, _ = np.float64(0).__reduce__()
    values = [
        np.float64(0.5),
        np.float32(2),
        np.int64(-3),
        np.uint8(7),
        np.bool_(True),
        np.complex64(1j),
        np.float16(0.25),
        np.dtype('>f8').type(1),
        Pickled(constructor, np.dtype('>f4'), b'\x3f\x80\0\0'),  # 1, big-endian
    ]
    content = dict(base_model=dict(a=torch.ones(2)), metrics=dict(acc=values))
    torch.save(content, path, _use_new_zipfile_serialization=module is None)
    if module is not None:  # a zip has checksums and lengths
        path.write_bytes(path.read_bytes().replace(b'numpy._core.multiarray', module))
    read = READERS[reader](path)['metrics']['acc']
    assert read == [0.5, 2, -3, 7, True, 1j, 0.25, 1, 1]
    assert all(type(v) in (bool, int, float, complex) for v in read)


class Hooked:
    """Would run a hook of its own type."""


UNSAFE = {
    'an array of objects': lambda: np.array([None]),
    'a number of objects': lambda: np.dtype('O'),
    'a structure': lambda: np.void((1, 2), np.dtype('i4,i4')),
    'a date': lambda: np.datetime64('2020-01-01'),
    'a function of numpy': lambda: np.load,
    'a stand-in as a function': lambda: Pickled(np.dtype, 'f8,f8'),
    'a class': Hooked,
}


@pytest.mark.parametrize('reader', READERS.values(), ids=READERS)
@pytest.mark.parametrize('unsafe', UNSAFE.values(), ids=UNSAFE)
def test_unsafe_pickles_are_refused(path, reader, unsafe):
    torch.save(dict(a=unsafe()), path)
    with pytest.raises(
        CheckpointError, match=r"a\.pth' was not loaded: .* could run code"
    ):
        reader(path)


def tar(path) -> None:
    with tarfile.open(path, 'w') as t:
        t.add(__file__, 'tensors')


NEITHER, DAMAGED = 'is neither a zip nor a pickle', 'looks truncated or damaged'
LFS = b'version https://git-lfs.github.com/spec/v1'
BROKEN = [
    (tar, NEITHER),
    (lambda path: torch.jit.save(torch.jit.script(nn.Linear(1, 1)), path), DAMAGED),
    (lambda path: path.write_bytes(b''), NEITHER),
    (lambda path: path.write_bytes(b'root:x:0:0:secret'), NEITHER),
    (lambda path: path.write_bytes(LFS), 'is a Git LFS pointer'),
    (lambda path: path.write_bytes(b'PK\x03\x04' + bytes(99)), DAMAGED),
]


@pytest.mark.parametrize('reader', READERS.values(), ids=READERS)
@pytest.mark.parametrize('write, words', BROKEN)
def test_broken_files_are_refused_without_their_bytes(path, reader, write, words):
    write(path)
    with pytest.raises(CheckpointError, match=f"'{path}' .*{words}") as e:
        reader(path)
    text = str(e.value).replace(str(path), '')
    assert 'root' not in text and '\n' not in text


@pytest.mark.parametrize(
    'content', [[1], dict(epoch=1), dict(state_dict={0: torch.ones(2)})]
)
def test_files_without_a_state_raise(path, content):
    torch.save(content, path)
    with pytest.raises(UserError, match='holds a list|no model state'):
        files.read_state(path)


CHANGES = {
    '1.bias': lambda s: s.pop('1.bias'),
    'extra': lambda s: s.update(extra=s['1.bias']),
    '0.weight': lambda s: s.update({'0.weight': torch.ones(5, 2)}),
}


@pytest.mark.parametrize('name', CHANGES)
def test_misfit_state_names_tensors(name):
    state = model().state_dict()
    CHANGES[name](state)
    with pytest.raises(CheckpointError, match=f"'a.pth' is of another model.*{name}"):
        files.load_strictly(model(), state, "'a.pth'")


class LoadsByItself(nn.Linear):
    """A layer whose own loading raises an error of one line."""

    def _load_from_state_dict(self, *args):
        raise RuntimeError('wrong version')


def test_error_of_one_line_is_not_swallowed():
    layer = LoadsByItself(2, 2)
    with pytest.raises(CheckpointError, match='wrong version'):
        files.load_strictly(layer, layer.state_dict(), "'a.pth'")


KINDS = {
    'complex': lambda w: w.to(torch.complex64),
    'of whole numbers': lambda w: w.to(torch.int64),
    'sparse': lambda w: w.to_sparse(),
    'without values': lambda w: w.to('meta'),
    'quantized': lambda w: torch.quantize_per_tensor(w, 0.1, 0, torch.qint8),
}


@pytest.mark.parametrize('load', [files.load_strictly, files.load_partly])
@pytest.mark.parametrize('change', KINDS.values(), ids=KINDS)
def test_other_number_types_are_refused(change, load):
    ours = model()
    before = ours[0].weight.detach().clone()
    state = model().state_dict()
    state['0.weight'] = change(state['0.weight'])
    with pytest.raises(
        CheckpointError, match=r"'a.pth' has tensors of other types: 0.weight"
    ):
        load(ours, state, "'a.pth'")
    assert torch.equal(ours[0].weight, before)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
def test_fitting_state_loads_from_any_precision(dtype):
    ours = model()
    state = {name: value.to(dtype) for name, value in model().state_dict().items()}
    files.load_strictly(ours, state, "'a.pth'")
    assert torch.equal(ours[0].weight, state['0.weight'].float())


LOADERS = pytest.mark.parametrize('load', [files.load_strictly, files.load_partly])
VALUES = {
    'nan': lambda w: w.fill_(torch.nan),
    'one nan': lambda w: w.view(-1)[-1:].fill_(torch.nan),
    'infinity': lambda w: w.view(-1)[:1].fill_(torch.inf),
    'minus infinity': lambda w: w.fill_(-torch.inf),
}


@LOADERS
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize('change', VALUES.values(), ids=VALUES)
def test_weights_that_are_not_finite_are_refused_by_name(load, change, dtype):
    ours = model()
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    state = {name: value.to(dtype) for name, value in model().state_dict().items()}
    change(state['1.weight'])
    words = r"'a\.pth' has weights that are NaN or infinite, in 1 tensors: 1\.weight\. Fix: "
    with pytest.raises(CheckpointError, match=words):
        load(ours, state, "'a.pth'")
    for name, value in ours.state_dict().items():
        assert torch.equal(value, before[name])


class Masked(nn.Module):
    """A model whose attention's mask is saved with its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(2, 2)
        self.register_buffer('mask', torch.full((3, 3), -torch.inf).triu(1))


@LOADERS
def test_a_mask_is_infinite_where_the_models_is(load):
    state = Masked().state_dict()
    load(Masked(), {name: value.half() for name, value in state.items()}, "'a.pth'")
    state['mask'] = -state['mask']
    with pytest.raises(CheckpointError, match='NaN or infinite, in 1 tensors: mask'):
        load(Masked(), state, "'a.pth'")
