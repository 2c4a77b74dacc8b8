"""Features once: an encoder's tokens over data, in a memory-mapped file.

<cache>/<fingerprint>/tokens.f16       batches of tokens, one after the other
<cache>/<fingerprint>/progress.json    their shape, and a checksum of each batch
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
from lm4ve.files import require_writable, sole_use
from lm4ve.probing.clock import FreeClock
from lm4ve.probing.data import ProbeData
from lm4ve.probing.encoders import Encoder
from lm4ve.probing.pooling import pool_tokens
from lm4ve.probing.token_file import TOKENS, TokenFile, open_token_file
from lm4ve.runner.cores import count_cores
from lm4ve.runner.devices import find_device
from lm4ve.tasks.base.analysis import proportional_grid

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
        shape (tuple[int, ...]): V, n, N, C.
        data (ProbeData): Labels and splits, without its items.
        fingerprint (str): Hex; of encoder, data, views, tokens and the libraries.
        folder (Path): Where they lie. Studies store their trainings in it.
        encoder (str): How a report names it.
        prefix (int): How many class and register tokens come first.
    """

    shape: tuple[int, ...]
    data: ProbeData
    fingerprint: str
    folder: Path
    encoder: str
    prefix: int = 0

    @property
    def tokens(self) -> np.ndarray:
        """Map the tokens, float16 ``[V, n, N, C]``.

        View 0 is the plain transform; the others are fixed augmentations. NaN: other
        views than the first of val and test, and damaged pictures, which are in no
        split.
        """
        return np.memmap(self.folder / TOKENS, np.float16, 'r', shape=self.shape)


class FeatureExtraction:
    """Runs a frozen encoder once over data, on a GPU if there is one.

    What an earlier run computed is used, also where it was killed.

    Args:
        encoder (Encoder): Is moved to the GPU while it computes, and then to the CPU.
        data (ProbeData): The data.
        cache (Path): Where features lie, each in a folder named by its fingerprint.
        views (int): V. From the second on, a picture of the training split is cut at
            random: half to all of it, never mirrored, since a mirrored digit is none.
        tokens (int): N, at most, without class and register tokens; see
            :func:`lm4ve.probing.pooling.pool_tokens`.

    Raises:
        UserError: The encoder does not take so many views or tokens, or the folder
            cannot be written to.
    """

    def __init__(
        self,
        encoder: Encoder,
        data: ProbeData,
        cache: Path,
        views: int = 1,
        tokens: int = 16,
    ) -> None:
        check('--tokens', tokens, least=0)
        most_views = None if encoder.kind == 'image' else 1
        check('--views', views, least=1, most=most_views)
        self.encoder = encoder
        self.data = data
        self.views = views
        self.most_tokens = tokens
        self.fingerprint = _fingerprint(encoder, data, views, tokens)
        self.folder = Path(cache) / self.fingerprint[:16]
        require_writable(self.folder, '--cache')

    @property
    def token_rows(self) -> int:
        """How many token rows there are in the end, one for each view and item."""
        return self.views * len(self.data)

    def start(self) -> tuple[list[int], float, float]:
        """Compute the first batch of what is missing.

        Returns:
            tuple: N and C, and the seconds that the encoder will take on free cores: for
            the rest, and for a picture with its views.

        Raises:
            UserError: See :meth:`finish`.
        """
        with sole_use(self.folder / 'lock'):
            file = self._open()
            missing = self.token_rows - file.token_rows
            if missing == 0:
                return file.shape, 0.0, 0.0
            batch = min(BATCH, missing)
            seconds = self._compute(file, file.token_rows + batch)
            seconds_of_row = seconds / batch
            rest = seconds_of_row * (missing - batch)
            return file.shape, rest, seconds_of_row * self.views

    def finish(self) -> Features:
        """Compute what is missing, and return the features.

        Raises:
            UserError: The encoder does not take such data or gives no tokens, values
                are not finite or exceed float16's range, a picture of val or test is
                damaged, or the disk is full.
        """
        with sole_use(self.folder / 'lock'):
            file = self._open()
            if file.token_rows < self.token_rows:
                self._compute(file, self.token_rows)
        shape = (self.views, len(self.data), *file.shape)
        features = Features(
            shape,
            self.data,
            self.fingerprint,
            self.folder,
            self.encoder.name,
            self.encoder.prefix,
        )
        damaged = np.flatnonzero(np.isnan(features.tokens[0, :, 0, 0]))
        # Only labels and splits are needed from here on; items may hold whole data sets.
        kept = replace(self.data.without_damaged(damaged), items=())
        return replace(features, data=kept)

    def _open(self) -> TokenFile:
        """Open the tokens that are there."""
        file = open_token_file(self.folder)
        if file.token_rows > self.token_rows:  # no record of these data
            return TokenFile(self.folder)
        return file

    def _compute(self, file: TokenFile, until: int) -> float:
        """Compute token rows until there are so many; return the seconds on free cores."""
        inputs = _Inputs(self.encoder, self.data)
        with _on_device(self.encoder.module):
            return _append_tokens(
                file, inputs, until, self.token_rows, self.most_tokens
            )


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


def _fingerprint(encoder: Encoder, data: ProbeData, views: int, tokens: int) -> str:
    """Return the hex digits that name the tokens of an encoder on data.

    They change with everything that may change a token: the encoder, the contents of
    the data, the numbers of views and tokens, and the versions of :data:`LIBRARIES`.
    """
    versions = {package.name: package.version for package in distributions()}
    facts = [encoder.fingerprint, data.fingerprint, views, tokens]
    for library in LIBRARIES:
        facts.append(versions.get(library))
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


# ---------------------------------------------------------------------------- inputs
class _Inputs:
    """The inputs of an encoder by token row: all items in the first view, then in the second, ...

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
        self.is_trained = np.zeros(len(data), bool)
        self.is_trained[data.splits['train']] = True

    def load(self, row: int) -> Any:
        """Return the input of a token row, or None if its tokens stay NaN.

        These are items in no split, damaged pictures, and further views of items that
        are not trained on.

        Args:
            row (int): View v of item i is row ``v * len(data) + i``.

        Raises:
            UserError: The encoder does not take such data.
        """
        view, index = divmod(row, len(self.data))
        has_view = self.is_used if view == 0 else self.is_trained
        if not has_view[index]:
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
        if view > 0:
            item = _cut(item, view, index)
        return self.encoder.transform(item)

    def first(self, total: int) -> Any:
        """Return the first input that there is.

        Args:
            total (int): The number of token rows.

        Raises:
            UserError: There is none.
        """
        for row in range(total):
            loaded = self.load(row)
            if loaded is not None:
                return loaded
        raise UserError('All pictures are damaged.')


def _cut(picture: Image.Image, view: int, index: int) -> Image.Image:
    """Return a random part of a picture, enlarged to the picture's size.

    The part has half to all of the area and the picture's proportions. View and index
    seed the draw, so that it is the same each time.
    """
    rng = np.random.default_rng((view, index))
    size = np.array(picture.size)  # width and height
    share_of_area = rng.uniform(0.5, 1.0)
    size_of_part = np.maximum(size * np.sqrt(share_of_area), 1).astype(int)
    corner = rng.integers(size - size_of_part + 1)
    left, top = corner.tolist()
    right, bottom = (corner + size_of_part).tolist()
    return picture.resize(
        picture.size, Image.Resampling.BICUBIC, (left, top, right, bottom)
    )


# ---------------------------------------------------------------------------- tokens
def _append_tokens(
    file: TokenFile, inputs: _Inputs, until: int, total: int, most_tokens: int
) -> float:
    """Compute token rows that a file lacks, and append them.

    Args:
        file (TokenFile): The file, with the token rows of earlier runs.
        inputs (_Inputs): The inputs of all token rows, and the encoder.
        until (int): How many token rows the file has afterwards.
        total (int): The number of token rows of the whole file, views times items.
        most_tokens (int): See :func:`lm4ve.probing.pooling.pool_tokens`.

    Returns:
        float: The seconds that these token rows take on free cores.

    Raises:
        UserError: See :meth:`FeatureExtraction.finish`.
    """
    encoder = inputs.encoder
    first = inputs.first(total)
    file.shape = _shape_of_tokens(encoder, first, most_tokens)
    done = file.token_rows
    if done == 0:
        _print_size(file, total)
    _require_room(file, total)

    # Transforms of pictures run in threads; a config's pipeline may not be safe in them.
    threads = None if isinstance(first, Tensor) else 1
    pool = ThreadPoolExecutor(threads)
    bar = tqdm(total=total, initial=done, desc='features')
    clock = FreeClock(count_cores())
    with open(file.folder / TOKENS, 'ab') as tokens, pool, bar:
        # A batch that was cut off when an earlier run was killed goes.
        tokens.truncate(done * file.token_row_bytes)
        for start in range(done, until, BATCH):
            rows = range(start, min(start + BATCH, until))
            loaded = list(pool.map(inputs.load, rows))
            batch = np.full((len(rows), *file.shape), np.nan, np.float16)
            present = [i for i, value in enumerate(loaded) if value is not None]
            if present:
                inputs_present = [loaded[i] for i in present]
                batch[present] = _encode(encoder, most_tokens, inputs_present)
            file.append(tokens, batch)
            bar.update(len(batch))
    return clock.seconds()


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
        most_tokens (int): See :func:`lm4ve.probing.pooling.pool_tokens`.
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
