"""Features once: an encoder's tokens over data, in a memory-mapped file.

    <cache>/<fingerprint>/tokens.f16       batches of tokens, one after the other
    <cache>/<fingerprint>/progress.json    their shape, and a checksum of each batch
    <cache>/<fingerprint>/lock             held by the process that writes

A batch is written before the record counts it, so that a kill loses one batch. What the
record counts is compared with its checksums whenever the file is opened.
"""

import hashlib
import json
import math
import os
import shutil
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from lm4ve.errors import UserError, check
from lm4ve.files import read_json, require_writable, sole_use, write_json
from lm4ve.probing.data import DamagedPictureError, ProbeData
from lm4ve.probing.encoders import Encoder
from lm4ve.runner.devices import find_device
from lm4ve.tasks.base.analysis import proportional_grid

TOKENS, RECORD = 'tokens.f16', 'progress.json'
#: Inputs that the encoder gets at a time.
BATCH = 64
#: Packages whose version may change pixels or tokens.
LIBRARIES = (
    *(
        'numpy',
        'pillow',
        'torch',
        'torchvision',
        'timm',
        'transformers',
        'mmcv',
        'mmpretrain',
    ),
    *('mmcv-lite', 'opencv-python', 'opencv-python-headless'),
)


@dataclass(frozen=True)
class Features:
    """An encoder's tokens over labelled data.

    Attributes:
        shape (tuple[int, ...]): V, n, N, C.
        data (ProbeData): Labels and splits, without its items.
        fingerprint (str): Hex; of encoder, data, views, tokens and the libraries.
        folder (Path): Where they lie. Studies store their trainings in it.
        encoder (str): How a report names it.
    """

    shape: tuple[int, ...]
    data: ProbeData
    fingerprint: str
    folder: Path
    encoder: str

    @property
    def tokens(self) -> np.ndarray:
        """Map the tokens, float16 ``[V, n, N, C]``.

        View 0 is the plain transform; the others are fixed augmentations. NaN: other
        views than the first of val and test, and damaged pictures, which are in no
        split.
        """
        return np.memmap(self.folder / TOKENS, np.float16, 'r', shape=self.shape)


def extract_features(
    encoder: Encoder, data: ProbeData, cache: Path, views: int = 1, tokens: int = 16
) -> Features:
    """Run a frozen encoder once over data, on a GPU if there is one.

    What an earlier run computed is used, also where it was killed.

    Args:
        encoder (Encoder): Is not changed.
        data (ProbeData): The data.
        cache (Path): Where features lie, each in a folder named by its fingerprint.
        views (int): V. From the second on, a picture of the training split is cut at
            random: half to all of it, never mirrored, since a mirrored digit is none.
        tokens (int): N, at most, without class and register tokens; see
            :func:`pool_tokens`.

    Raises:
        UserError: The encoder does not take such data or gives no tokens, values are
            not finite or exceed float16's range, a picture of val or test is damaged,
            or the disk is full.
    """
    encoder.module.to(find_device(None))
    check('--tokens', tokens, least=0)
    check('--views', views, least=1, most=None if encoder.kind == 'image' else 1)
    installed = {d.name: d.version for d in distributions()}
    facts = [
        encoder.fingerprint,
        data.fingerprint,
        views,
        tokens,
        *map(installed.get, LIBRARIES),
    ]
    fingerprint = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    folder = Path(cache) / fingerprint[:16]
    require_writable(folder, '--cache')
    with sole_use(folder / 'lock'):
        shape = _fill(folder, encoder, data, views * len(data), tokens)
    found = Features(
        (views, len(data), *shape), data, fingerprint, folder, encoder.name
    )
    damaged = np.flatnonzero(np.isnan(found.tokens[0, :, 0, 0]))
    return replace(found, data=replace(data.without_damaged(damaged), items=()))


def _load(encoder: Encoder, data: ProbeData, row: int) -> Any:
    """Return a row's input of the encoder, or None if it has none.

    Rows are all items in the first view, then all in the second, ...
    """
    view, index = divmod(row, len(data))
    wanted = ['train'] if view else [*data.splits]
    if not any(index in data.splits[split] for split in wanted):
        return None
    try:
        item = data[index]
    except DamagedPictureError:
        return None
    if isinstance(item, Image.Image) != (encoder.kind == 'image'):
        raise UserError(
            f"'{encoder.name}' takes {encoder.kind}s; '{data.name}' has others."
        )
    return encoder.transform(_cut(item, view, index) if view else item)


@torch.no_grad()
def _encode(encoder: Encoder, limit: int, inputs: list[Any]) -> np.ndarray:
    """Return the tokens of a batch, float16 ``[B, N, C]``.

    Raises:
        UserError: There are none, or float16 does not hold them.
    """
    batch: Any = inputs
    if isinstance(inputs[0], Tensor):  # this order is faster on CPUs
        batch = torch.stack(inputs).to(
            find_device(None), memory_format=torch.channels_last
        )
    features = encoder.module(batch)
    if not isinstance(features, Tensor) or features.dim() not in (3, 4, 5):
        found = list(getattr(features, 'shape', ())) or type(features).__name__
        raise UserError(f"The encoder '{encoder.name}' gives no tokens but {found}.")
    grid = None
    if encoder.kind == 'image' and features.dim() == 3:
        picture = inputs[0] if isinstance(batch, Tensor) else inputs[0]['inputs']
        grid = proportional_grid(
            features.shape[1] - encoder.prefix, *picture.shape[-2:]
        )
    half = pool_tokens(features.float(), limit, encoder.prefix, grid).half()
    if not half.isfinite().all():
        largest = f'values up to {float(features.abs().max()):.3g}'
        raise UserError(
            f"The encoder '{encoder.name}' gives {largest}; float16 holds 65504."
        )
    return half.cpu().numpy()


def _fill(
    folder: Path, encoder: Encoder, data: ProbeData, total: int, limit: int
) -> list[int]:
    """Compute and write the rows that are not on the disk; return the shape ``[N, C]`` of one."""
    shape, batches = _verified(folder)
    done = sum(rows for rows, _ in batches)
    if done == total:
        return shape
    if done > total:  # no record of these data
        done, batches = 0, []
    load = partial(_load, encoder, data)
    first = next((x for x in map(load, range(total)) if x is not None), None)
    if first is None:
        raise UserError('All pictures are damaged.')
    tokens = _encode(encoder, limit, [first])
    again, slack = _encode(encoder, limit, [first]), 0.01 * float(np.abs(tokens).max())
    if not np.allclose(tokens, again, rtol=0, atol=slack):
        raise UserError(f"The encoder '{encoder.name}' gives other tokens each time.")
    shape = [*tokens.shape[1:]]
    size = 2 * math.prod(shape)
    needed, free = (total - done) * size / 1e6, shutil.disk_usage(folder).free / 1e6
    print(
        f'Features: {total} x {shape} in float16; {needed:.0f} MB for {folder}.',
        flush=True,
    )
    if free < needed:
        raise UserError(
            f"'{folder}' has {free:.0f} MB free, {needed:.0f} MB are needed."
        )
    pool = ThreadPoolExecutor(None if isinstance(first, Tensor) else 1)
    bar = tqdm(total=total, initial=done, desc='features')
    with open(folder / TOKENS, 'ab') as file, pool, bar:
        file.truncate(done * size)
        for start in range(done, total, BATCH):
            inputs = [*pool.map(load, range(start, min(start + BATCH, total)))]
            good = [k for k, x in enumerate(inputs) if x is not None]
            batch = np.full((len(inputs), *shape), np.nan, np.float16)
            if good:
                batch[good] = _encode(encoder, limit, [inputs[k] for k in good])
            file.write(raw := batch.tobytes())
            file.flush()
            batches.append([len(batch), zlib.crc32(raw)])
            write_json(dict(shape=shape, batches=batches), folder / RECORD)
            bar.update(len(batch))
    return shape


def _verified(folder: Path) -> tuple[list[int], list[list[int]]]:
    """Return the shape of a row, and rows and checksum of each batch that is on the disk.

    A record that is damaged counts nothing, and a batch that is damaged ends what
    counts.
    """
    record = read_json(folder / RECORD)
    if not _is_record(record):
        return [], []
    shape = record['shape']
    row_bytes = 2 * math.prod(shape)
    batches: list[list[int]] = []
    with suppress(OSError), open(folder / TOKENS, 'rb') as file:
        left = file.seek(0, os.SEEK_END)
        file.seek(0)
        for rows, checksum in record['batches']:
            left -= rows * row_bytes
            if left < 0 or zlib.crc32(file.read(rows * row_bytes)) != checksum:
                break
            batches.append([rows, checksum])
    return shape, batches


def _is_record(value: Any) -> bool:
    """Return whether a file's content is a record: a shape and a list of pairs of numbers."""
    if not isinstance(value, dict) or {'shape', 'batches'} - value.keys():
        return False
    batches = value['batches']
    if not _are_counts(value['shape'], 2) or not isinstance(batches, list):
        return False
    for batch in batches:
        if not _are_counts(batch, 2, least=0):
            return False
        if batch[0] == 0:  # no rows
            return False
    return True


def _are_counts(value: Any, length: int, least: int = 1) -> bool:
    is_list = isinstance(value, list) and len(value) == length
    return is_list and all(type(number) is int and number >= least for number in value)


def _cut(picture: Image.Image, view: int, index: int) -> Image.Image:
    """Return a random part of a picture at its size, the same one for a view and an index."""
    rng = np.random.default_rng((view, index))
    sides = np.array(picture.size)
    cut = np.maximum(sides * np.sqrt(rng.uniform(0.5, 1.0)), 1).astype(int)
    corner = rng.integers(sides - cut + 1)
    box = (*corner.tolist(), *(corner + cut).tolist())
    return picture.resize(picture.size, Image.Resampling.BICUBIC, box)


def pool_tokens(
    features: Tensor, limit: int, prefix: int = 0, grid: Sequence[int] | None = None
) -> Tensor:
    """Average an encoder's output to few tokens.

    Args:
        features (Tensor): A map ``[B, C, H, W]``, of clips ``[B, C, T, H, W]``, or
            tokens ``[B, N, C]``.
        limit (int): A map or grid is averaged to at most s x s places, where s is the
            root of ``limit``; a sequence (clips, clouds) along its order. 0 keeps all.
        prefix (int): So many tokens come first and are kept as they are.
        grid (Sequence[int], optional): Rows and columns of the others, if they have
            places.

    Returns:
        Tensor: Tokens ``[B, N', C]``.
    """
    if features.dim() > 3:  # class tokens are of sequences
        prefix, grid = 0, (features.shape[2:] if features.dim() == 4 else None)
        features = features.flatten(2).transpose(1, 2)
    first, places = features[:, :prefix], features[:, prefix:].transpose(1, 2)
    if limit and grid and math.prod(grid) == places.shape[2]:
        most = math.isqrt(limit)
        sides = min(most, grid[0]), min(most, grid[1])
        places = F.adaptive_avg_pool2d(places.unflatten(2, grid), sides).flatten(2)
    if limit and places.shape[2] > limit:
        places = F.adaptive_avg_pool1d(places, limit)
    return torch.cat((first, places.transpose(1, 2)), 1)
