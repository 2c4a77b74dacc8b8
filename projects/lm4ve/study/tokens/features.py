"""Features once: an encoder's tokens over data, in a memory-mapped file.

<cache>/<fingerprint>/tokens.f16       batches of tokens, one after the other
<cache>/<fingerprint>/progress.json    their shape, and a checksum of each batch
<cache>/<fingerprint>/<digest>.npz     labels and splits, for the processes that train
<cache>/<fingerprint>/lock             held by the process that writes
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from lm4ve.data.image_files import DamagedPictureError
from lm4ve.errors import UserError, check
from lm4ve.files import replacing, require_writable, sole_use
from lm4ve.runner.devices import find_device
from lm4ve.study.pictures.data import ProbeData
from lm4ve.study.tokens.encoders import Encoder
from lm4ve.study.tokens.pooling import pool_tokens
from lm4ve.study.tokens.token_file import TOKENS, TokenFile, open_token_file
from lm4ve.tasks.base.layouts import proportional_grid

#: Inputs that the encoder gets at a time.
BATCH = 64
#: Packages whose version may change pixels or tokens; their order is that of the
#: fingerprint.
LIBRARIES = (
    'numpy',
    'pillow',
    'torch',
    'torchvision',
    'timm',
    'transformers',
    'mmcv',
    'mmpretrain',
    'mmcv-lite',
    'opencv-python',
    'opencv-python-headless',
)


@dataclass(frozen=True)
class Features:
    """An encoder's tokens over labelled data.

    Attributes:
        shape (tuple[int, int, int]): n, N, C.
        data (ProbeData): Labels and splits, without its items.
        fingerprint (str): Hex; of encoder, data, tokens and the libraries.
        folder (Path): Where they lie. Studies store their trainings in it.
        encoder (str): How a report names it.
        prefix (int): How many class and register tokens come first.
    """

    shape: tuple[int, int, int]
    data: ProbeData
    fingerprint: str
    folder: Path
    encoder: str
    prefix: int = 0

    @property
    def digest(self) -> str:
        """Hex digits that identify tokens, labels and splits."""
        content = hashlib.sha256(self.fingerprint.encode())
        content.update(self.data.labels.tobytes() + self.data.groups.tobytes())
        for split in sorted(self.data.splits):
            content.update(split.encode() + self.data.splits[split].tobytes())
        return content.hexdigest()[:24]

    @property
    def file(self) -> Path:
        """The file of labels and splits."""
        return self.folder / f'{self.digest}.npz'

    def save(self) -> None:
        """Write labels and splits beside the tokens, for :func:`load_features`."""
        facts = dict(
            shape=self.shape,
            classes=self.data.classes,
            name=self.data.name,
            fingerprint=self.fingerprint,
            encoder=self.encoder,
            prefix=self.prefix,
        )
        with replacing(self.file) as path, open(path, 'wb') as file:
            arrays: Any = dict(
                self.data.splits, labels=self.data.labels, groups=self.data.groups
            )
            np.savez(file, facts=np.array(json.dumps(facts)), **arrays)

    @property
    def tokens(self) -> np.ndarray:
        """Map the tokens, float16 ``[n, N, C]``; NaN for damaged pictures, in no split."""
        return np.memmap(self.folder / TOKENS, np.float16, 'r', shape=self.shape)


def load_features(path: Path) -> Features:
    """Return the features whose labels and splits :meth:`Features.save` wrote.

    Args:
        path (Path): The file, in the folder of the tokens.
    """
    with np.load(path, allow_pickle=False) as stored:
        facts = json.loads(str(stored['facts']))
        labels = stored['labels']
        groups = stored['groups']
        splits = {name: stored[name] for name in ('train', 'val', 'test')}
    data = ProbeData(
        name=facts['name'],
        labels=labels,
        splits=splits,
        classes=tuple(facts['classes']),
        fingerprint='',
        items=(),
        groups=groups,
    )
    count, tokens, channels = facts['shape']
    return Features(
        shape=(count, tokens, channels),
        data=data,
        fingerprint=facts['fingerprint'],
        folder=path.parent,
        encoder=facts['encoder'],
        prefix=facts['prefix'],
    )


class FeatureExtraction:
    """Runs a frozen encoder once over data, on a GPU if there is one.

    What an earlier run computed is used, also where it was killed.

    Args:
        encoder (Encoder): Is moved to the GPU while it computes, and then to the CPU.
        data (ProbeData): The data.
        cache (Path): Where features lie, each in a folder named by its fingerprint.
        tokens (int): N, at most, without class and register tokens; see
            :func:`lm4ve.study.tokens.pooling.pool_tokens`.

    Raises:
        UserError: The folder cannot be written to.
    """

    def __init__(
        self,
        encoder: Encoder,
        data: ProbeData,
        cache: Path,
        tokens: int = 16,
    ) -> None:
        check('--tokens', tokens, least=0)
        self.encoder = encoder
        self.data = data
        self.most_tokens = tokens
        self.fingerprint = _fingerprint(encoder, data, tokens)
        self.folder = Path(cache) / self.fingerprint[:16]
        require_writable(self.folder, '--cache')

    def extract(self) -> Features:
        """Compute what is missing, and return the features.

        Raises:
            UserError: The encoder does not take such data or gives no tokens, values
                are not finite or exceed float16's range, a picture of val or test is
                damaged, or the disk is full.
        """
        with sole_use(self.folder / 'lock'):
            file = self._open()
            if file.token_rows < len(self.data):
                self._compute(file)
        tokens, channels = file.shape
        features = Features(
            (len(self.data), tokens, channels),
            self.data,
            self.fingerprint,
            self.folder,
            self.encoder.name,
            self.encoder.prefix,
        )
        damaged = np.flatnonzero(np.isnan(features.tokens[:, 0, 0]))
        # Only labels and splits are needed from here on; items may hold whole data sets.
        kept = replace(self.data.without_damaged(damaged), items=())
        return replace(features, data=kept)

    def _open(self) -> TokenFile:
        """Open the tokens that are there."""
        file = open_token_file(self.folder)
        if file.token_rows > len(self.data):  # no record of these data
            return TokenFile(self.folder)
        return file

    def _compute(self, file: TokenFile) -> None:
        """Compute the token rows that a file lacks."""
        inputs = _Inputs(self.encoder, self.data)
        with _on_device(self.encoder.module):
            _append_tokens(file, inputs, self.most_tokens)


@contextmanager
def _on_device(module: nn.Module) -> Iterator[None]:
    """Keep a module on the GPU, if there is one, inside this context; then on the CPU.

    Heads train in other processes, which get the memory that it leaves.
    """
    module.to(find_device(None))
    try:
        yield
    finally:
        module.to('cpu')
        torch.cuda.empty_cache()  # without a GPU it does nothing


def _fingerprint(encoder: Encoder, data: ProbeData, tokens: int) -> str:
    """Return the hex digits that name the tokens of an encoder on data.

    They change with everything that may change a token: the encoder, the contents of
    the data, the number of tokens, and the versions of :data:`LIBRARIES`.
    """
    versions = {package.name: package.version for package in distributions()}
    facts = [encoder.fingerprint, data.fingerprint, tokens]
    for library in LIBRARIES:
        facts.append(versions.get(library))
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


# ---------------------------------------------------------------------------- inputs
class _Inputs:
    """The inputs of an encoder, one for each item.

    Args:
        encoder (Encoder): Its transform makes them.
        data (ProbeData): The items.
    """

    def __init__(self, encoder: Encoder, data: ProbeData) -> None:
        self.encoder = encoder
        self.data = data
        self.is_used = np.zeros(len(data), bool)
        for indices in data.splits.values():
            self.is_used[indices] = True

    def load(self, index: int) -> Any:
        """Return the input of an item, or None if its tokens stay NaN.

        These are items in no split, and damaged pictures.

        Raises:
            UserError: The encoder does not take such data.
        """
        if not self.is_used[index]:
            return None
        try:
            item = self.data[index]
        except DamagedPictureError:
            return None
        is_picture = isinstance(item, Image.Image)
        takes_pictures = self.encoder.kind == 'image'
        if is_picture != takes_pictures:
            raise UserError(
                f"'{self.encoder.name}' takes {self.encoder.kind}s; "
                f"'{self.data.name}' has others."
            )
        return self.encoder.transform(item)

    def first(self) -> Any:
        """Return the first input that there is.

        Raises:
            UserError: There is none.
        """
        for index in range(len(self.data)):
            loaded = self.load(index)
            if loaded is not None:
                return loaded
        raise UserError('All pictures are damaged.')


# ---------------------------------------------------------------------------- tokens
def _append_tokens(file: TokenFile, inputs: _Inputs, most_tokens: int) -> None:
    """Compute the token rows that a file lacks, and append them.

    Args:
        file (TokenFile): The file, with the token rows of earlier runs.
        inputs (_Inputs): The inputs of all token rows, and the encoder.
        most_tokens (int): See :func:`lm4ve.study.tokens.pooling.pool_tokens`.

    Raises:
        UserError: See :meth:`FeatureExtraction.extract`.
    """
    encoder = inputs.encoder
    total = len(inputs.data)
    first = inputs.first()
    file.shape = _shape_of_tokens(encoder, first, most_tokens)
    done = file.token_rows
    if done == 0:
        _print_size(file, total)
    _require_room(file, total)

    # Transforms of pictures run in threads; a config's pipeline may not be safe in them.
    threads = None if isinstance(first, Tensor) else 1
    pool = ThreadPoolExecutor(threads)
    bar = tqdm(total=total, initial=done, desc='features')
    with open(file.folder / TOKENS, 'ab') as tokens, pool, bar:
        # A batch that was cut off when an earlier run was killed goes.
        tokens.truncate(done * file.token_row_bytes)
        for start in range(done, total, BATCH):
            rows = range(start, min(start + BATCH, total))
            loaded = list(pool.map(inputs.load, rows))
            batch = np.full((len(rows), *file.shape), np.nan, np.float16)
            present = [i for i, value in enumerate(loaded) if value is not None]
            if present:
                inputs_present = [loaded[i] for i in present]
                batch[present] = _encode(encoder, most_tokens, inputs_present)
            file.append(tokens, batch)
            bar.update(len(batch))


def _shape_of_tokens(encoder: Encoder, example: Any, most_tokens: int) -> list[int]:
    """Return N and C of an encoder's tokens, from an example that is encoded twice.

    Raises:
        UserError: The tokens differ by more than 1 % of the largest value: the encoder
            draws random numbers.
    """
    tokens = _encode(encoder, most_tokens, [example])
    again = _encode(encoder, most_tokens, [example])
    tolerance = 0.01 * float(np.abs(tokens).max())
    if not np.allclose(tokens, again, rtol=0, atol=tolerance):
        raise UserError(f"The encoder '{encoder.name}' gives other tokens each time.")
    _, count, channels = tokens.shape
    return [count, channels]


def _print_size(file: TokenFile, total: int) -> None:
    """Print how many tokens are computed, and what they take on the disk."""
    size = total * file.token_row_bytes / 1e6
    print(
        f'Features: {total} x {file.shape} in float16; {size:.0f} MB for {file.folder}.',
        flush=True,
    )


def _require_room(file: TokenFile, total: int) -> None:
    """Refuse a disk that is too full for the token rows that a file lacks.

    Raises:
        UserError: There is not enough room.
    """
    needed = (total - file.token_rows) * file.token_row_bytes / 1e6
    free = shutil.disk_usage(file.folder).free / 1e6
    if free < needed:
        raise UserError(
            f"'{file.folder}' has {free:.0f} MB free, {needed:.0f} MB are needed."
        )


@torch.no_grad()
def _encode(encoder: Encoder, most_tokens: int, inputs: list[Any]) -> np.ndarray:
    """Return the tokens of a batch, averaged to few, as float16 ``[B, N, C]``.

    Args:
        encoder (Encoder): The encoder.
        most_tokens (int): See :func:`lm4ve.study.tokens.pooling.pool_tokens`.
        inputs (list): Outputs of the encoder's transform: tensors, or a config's
            samples.

    Raises:
        UserError: The encoder gives no tokens, or values beyond float16's range.
    """
    batch: Any = inputs
    if isinstance(inputs[0], Tensor):
        stacked = torch.stack(inputs)
        # This memory order is faster on CPUs.
        batch = stacked.to(find_device(None), memory_format=torch.channels_last)
    features = encoder.module(batch)
    _check_features(encoder, features)
    grid = None
    if encoder.kind == 'image' and features.dim() == 3:
        patches = features.shape[1] - encoder.prefix
        height, width = _size_of(inputs[0])
        grid = proportional_grid(patches, height, width)
    tokens = pool_tokens(features.float(), most_tokens, encoder.prefix, grid).half()
    if not tokens.isfinite().all():
        largest = float(features.abs().max())
        raise UserError(
            f"The encoder '{encoder.name}' gives values up to {largest:.3g}; "
            'float16 holds 65504.'
        )
    return tokens.cpu().numpy()


def _size_of(picture: Any) -> tuple[int, int]:
    """Return height and width of an encoder's input: a tensor, or a config's sample."""
    if not isinstance(picture, Tensor):
        picture = picture['inputs']
    height, width = picture.shape[-2:]
    return height, width


def _check_features(encoder: Encoder, features: Any) -> None:
    """Refuse an encoder's output that is neither tokens nor a map.

    Raises:
        UserError: The message gives the output's shape, or its type if it has none.
    """
    if isinstance(features, Tensor) and features.dim() in (3, 4, 5):
        return
    if hasattr(features, 'shape') and len(features.shape) > 0:
        description = str(list(features.shape))
    else:
        description = type(features).__name__
    raise UserError(f"The encoder '{encoder.name}' gives no tokens but {description}.")
