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

OTHER = 'big' if sys.byteorder == 'little' else 'little'


def all_kinds() -> dict:
    torch.manual_seed(0)
    base, conjugate = torch.randn(6, 4), torch.randn(3, dtype=torch.complex64).conj()
    return {
        **dict(
            plain=base,
            shared=base[2:],
            column=base[:, 1],
            transposed=torch.randn(4, 6).t(),
        ),
        **dict(
            strided=torch.randn(8, 8)[1::2, ::3],
            expanded=torch.randn(1, 3).expand(4, 3),
        ),
        **dict(bfloat16=torch.randn(5).bfloat16(), float16=torch.randn(3, 2).half()),
        **dict(int64=torch.arange(7), bool=torch.tensor([True, False, True])),
        **dict(conjugate=conjugate, negative=(conjugate * 1).conj().imag),
        **dict(scalar=torch.tensor(3.0), empty=torch.empty(0, 4)),
        'parameter': torch.nn.Parameter(torch.randn(2, 2)),
        0: torch.ones(1),  # no name
    }


def rewritten(
    path: Path, order: str = sys.byteorder, reverse: bool = False, **kwargs
) -> Path:
    """The same file by Python's zipfile, saying that it is in a byte order."""
    other = path.with_stem(f'{order}-{reverse}')
    with (
        zipfile.ZipFile(path) as source,
        zipfile.ZipFile(other, 'w', **kwargs) as target,
    ):
        for entry in sorted(
            source.infolist(), key=lambda e: e.header_offset, reverse=reverse
        ):
            said = entry.filename.endswith('/byteorder')
            target.writestr(
                entry.filename, order.encode() if said else source.read(entry)
            )
    return other


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / 'kinds.pth'
    torch.save(all_kinds(), path)
    return path


def assert_as_torch_reads_it(path: Path) -> None:
    content = torch.load(path, weights_only=True)
    expected = {
        k: v.to_dense() for k, v in content.items() if k and isinstance(v, torch.Tensor)
    }
    mine = {name: read().to_dense() for name, read in open_torch(path).items()}
    # Swapped bytes are NaN here and there.
    torch.testing.assert_close(mine, expected, rtol=0, atol=0, equal_nan=True)


REWRITES = [
    lambda file: file,
    # Storages that no name is for: places cannot be told from the zip's directory.
    lambda file: torch.save({'extra': [torch.ones(9)], **all_kinds()}, file) or file,
    lambda file: (
        torch.save({'extra': dict(a=torch.ones(9)), **all_kinds()}, file) or file
    ),
    lambda file: (
        torch.save({'extra': torch.eye(3).to_sparse(), **all_kinds()}, file) or file
    ),
    # Without alignment, and storages in another order.
    lambda file: rewritten(file),
    lambda file: rewritten(file, reverse=True),
    lambda file: torch.save({}, file) or file,
]


@pytest.mark.parametrize('change', REWRITES)
def test_every_kind_of_tensor_is_as_torch_reads_it(file, change):
    assert_as_torch_reads_it(change(file))


def test_a_compressed_zip_is_refused(file):
    packed = rewritten(file, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match=f'{packed.name}.*compressed'):
        open_torch(packed)


def read_tensors(path: Path) -> None:
    for read in open_torch(path).values():
        read()


@pytest.mark.parametrize('order', [sys.byteorder, OTHER])
@pytest.mark.parametrize('read', [read_tensors, read_checkpoint])
def test_a_wrong_byte_is_refused_by_its_checksum(file, read, order):
    torch.save({k: v for k, v in all_kinds().items() if k}, file)
    path = rewritten(file, order)
    read(path)
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as z:
        entries = [e for e in z.infolist() if e.file_size]
    for entry in entries:
        place = entry.header_offset + 30 + len(entry.filename) + entry.file_size // 2
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(CheckpointError, match=path.name):
            read(path)


def test_a_file_of_another_byte_order(file):
    swapped = rewritten(file, OTHER)
    assert open_torch(swapped)['int64']()[1] == 1 << 56
    assert_as_torch_reads_it(swapped)


@pytest.mark.parametrize('change', [lambda f: os.truncate(f, 100), Path.unlink])
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
