"""Tensors of PyTorch's files, read one at a time, are those that torch reads."""

import os
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from lm4ve.errors import CheckpointError
from lm4ve.llm.torch_files import open_torch
from lm4ve.runner.checkpoint_files import read_checkpoint

OTHER_ORDER = 'big' if sys.byteorder == 'little' else 'little'


def all_kinds() -> dict:
    """Return tensors of every kind by name, and one without a name."""
    torch.manual_seed(0)
    base = torch.randn(6, 4)
    conjugate = torch.randn(3, dtype=torch.complex64).conj()
    return {
        'plain': base,
        'shared': base[2:],
        'column': base[:, 1],
        'transposed': torch.randn(4, 6).t(),
        'strided': torch.randn(8, 8)[1::2, ::3],
        'expanded': torch.randn(1, 3).expand(4, 3),
        'bfloat16': torch.randn(5).bfloat16(),
        'float16': torch.randn(3, 2).half(),
        'int64': torch.arange(7),
        'bool': torch.tensor([True, False, True]),
        'conjugate': conjugate,
        'negative': (conjugate * 1).conj().imag,
        'scalar': torch.tensor(3.0),
        'empty': torch.empty(0, 4),
        'parameter': torch.nn.Parameter(torch.randn(2, 2)),
        0: torch.ones(1),  # no name
    }


def rewritten(
    path: Path, order: str = sys.byteorder, reverse: bool = False, **options
) -> Path:
    """Write the same file by Python's zipfile.

    Args:
        path (Path): The file.
        order (str): The byte order that the new file names.
        reverse (bool): Begin with the last entry.
        **options: Of ``zipfile.ZipFile``.
    """
    other = path.with_stem(f'{order}-{reverse}')
    source = zipfile.ZipFile(path)
    target = zipfile.ZipFile(other, 'w', **options)
    with source, target:
        entries = sorted(source.infolist(), key=lambda entry: entry.header_offset)
        if reverse:
            entries.reverse()
        for entry in entries:
            content = source.read(entry)
            if entry.filename.endswith('/byteorder'):
                content = order.encode()
            target.writestr(entry.filename, content)
    return other


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / 'kinds.pth'
    torch.save(all_kinds(), path)
    return path


def assert_as_torch_reads_it(path: Path) -> None:
    content = torch.load(path, weights_only=True)
    expected = {}
    for name, value in content.items():
        if isinstance(name, str) and isinstance(value, torch.Tensor):
            expected[name] = value.to_dense()
    found = {}
    for name, read in open_torch(path).items():
        found[name] = read().to_dense()
    # Swapped bytes are NaN here and there.
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


#: Values beside the tensors whose storages have no name: then the places of the
#: storages cannot be derived from the zip's directory.
UNNAMED = {
    'none': {},
    'list': {'extra': [torch.ones(9)]},
    'dict': {'extra': dict(a=torch.ones(9))},
    'sparse': {'extra': torch.eye(3).to_sparse()},
}


@pytest.mark.parametrize('extra', UNNAMED.values(), ids=UNNAMED)
def test_every_kind_of_tensor_is_as_torch_reads_it(tmp_path, extra):
    file = tmp_path / 'kinds.pth'
    torch.save({**extra, **all_kinds()}, file)
    assert_as_torch_reads_it(file)


def test_a_file_without_tensors_is_as_torch_reads_it(tmp_path):
    torch.save({}, tmp_path / 'empty.pth')
    assert_as_torch_reads_it(tmp_path / 'empty.pth')


@pytest.mark.parametrize('reverse', [False, True])
def test_storages_may_be_unaligned_and_in_any_order(file, reverse):
    assert_as_torch_reads_it(rewritten(file, reverse=reverse))


def test_a_compressed_zip_is_refused(file):
    packed = rewritten(file, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match=f'{packed.name}.*compressed'):
        open_torch(packed)


def read_tensors(path: Path) -> None:
    for read in open_torch(path).values():
        read()


@pytest.mark.parametrize('order', [sys.byteorder, OTHER_ORDER])
@pytest.mark.parametrize('read', [read_tensors, read_checkpoint])
def test_a_wrong_byte_is_refused_by_its_checksum(file, read, order):
    named = {name: tensor for name, tensor in all_kinds().items() if name != 0}
    torch.save(named, file)
    path = rewritten(file, order)
    read(path)
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        entries = [entry for entry in archive.infolist() if entry.file_size]
    for entry in entries:
        begin = entry.header_offset + 30 + len(entry.filename)
        damaged = bytearray(whole)
        damaged[begin + entry.file_size // 2] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=path.name):
            read(path)


def test_a_file_of_another_byte_order(file):
    swapped = rewritten(file, OTHER_ORDER)
    assert open_torch(swapped)['int64']()[1] == 1 << 56
    assert_as_torch_reads_it(swapped)


def cut(path: Path) -> None:
    os.truncate(path, 100)


@pytest.mark.parametrize('change', [cut, Path.unlink])
def test_file_that_shrinks_or_goes_is_refused(file, change):
    tensors = open_torch(file)
    change(file)
    with pytest.raises((CheckpointError, OSError), match='kinds.pth'):
        tensors['plain']()


def test_a_file_that_is_replaced_is_refused(file, tmp_path):
    tensors = open_torch(file)
    torch.save({**all_kinds(), 'plain': torch.zeros(6, 4)}, tmp_path / 'new')
    os.replace(tmp_path / 'new', file)
    with pytest.raises(CheckpointError, match='kinds.pth is damaged or changed.*Fix'):
        tensors['plain']()


@pytest.mark.parametrize('content', [[torch.zeros(2)], torch.zeros(2)], ids=type)
@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.filterwarnings('ignore:.*before PyTorch 1.6')
def test_a_file_without_names_is_refused(tmp_path, content, zipped):
    path = tmp_path / 'consolidated.00.pth'
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match='not named tensors'):
        open_torch(path)


def test_the_old_format_is_a_warning(file):
    torch.save(all_kinds(), file, _use_new_zipfile_serialization=False)
    with pytest.warns(UserWarning, match='before PyTorch 1.6.*whole file'):
        assert_as_torch_reads_it(file)
