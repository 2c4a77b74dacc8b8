"""One training on cached tokens, its stored result, and the processes that train.

A training depends on its job, on the features and on nothing else: one CPU thread, an order of
its own, no clock. So trainings may run in any order and number at a time, and a study that was
killed ends with the same numbers.
"""

import hashlib
import itertools
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.logging import MMLogger
from torch import Tensor, nn

from lm4ve.ablation.trial import end_with_parent
from lm4ve.files import write_json
from lm4ve.probing.features import Features
from lm4ve.probing.variants import BATCH, Variant, build_head, count_operations, count_trainable

#: Part of every result's key: another number for another recipe.
RECIPE = 2
WEIGHT_DECAY = 0.01
DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
#: Calls a method of :class:`Trainer` for each argument.
Run = Callable[[str, Iterable[Any]], Iterable[Any]]


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        variant (Variant): What is trained.
        identity (str): Hex; of the variant's computation and frozen weights.
        rate (float): The largest learning rate of the one-cycle schedule.
        seed (int): Decides the initialization, the order and a random block.
        steps (int): Batches.
        split (str): What is scored: 'val' while rates are tuned, 'test' at the end.
    """

    variant: Variant
    identity: str
    rate: float
    seed: int
    steps: int
    split: str

    def path(self, features: Features) -> Path:
        """Return the file of its result; whatever changes the result changes the name."""
        fields = {k: v for k, v in asdict(self).items() if k != 'variant'}
        key = digest([RECIPE, features.fingerprint, torch.__version__, DEVICE, fields])
        return features.folder / 'trainings' / f'{key}.json'


@dataclass(frozen=True)
class Profile:
    """What a variant is made of, and what it costs here.

    Attributes:
        identity (str): See :class:`Job`.
        embed_dims (int): D of a block; 0 without one.
        trainable (int): Parameters that train, those of norm and classifier included.
        operations (int): Floating-point operations up to the norm, for one sample.
        step_seconds, fixed_seconds (float): A training takes these; 0 was not measured.
    """

    identity: str
    embed_dims: int
    trainable: int
    operations: int
    step_seconds: float
    fixed_seconds: float


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:24]


class Trainer:
    """Trains variants on the tokens of one encoder and data set.

    Tokens are standardized for each channel by (at most 1,024 of) the pictures to train.
    """

    def __init__(self, features: Features) -> None:
        self.features = features
        self.channels = features.tokens.shape[-1]
        train = features.splits['train']
        part = torch.from_numpy(features.tokens[0, train[:: len(train) // 1024 + 1]]).float()
        self.mean = part.mean((0, 1)).to(DEVICE)
        self.deviation = part.std((0, 1)).to(DEVICE) + 1e-6

    def load(self, indices: np.ndarray, views: np.ndarray | int = 0) -> tuple[Tensor, Tensor]:
        """Return standardized tokens, float32 ``[B, N, C]``, and labels, int64 ``[B]``."""
        tokens = torch.from_numpy(np.asarray(self.features.tokens[views, indices])).to(DEVICE)
        labels = torch.from_numpy(self.features.labels[indices]).to(DEVICE)
        return (tokens.float() - self.mean) / self.deviation, labels

    def batches(self, splits: Sequence[str], seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches without end, one permutation of the pictures after another.

        Only the split 'train' has further views.
        """
        generator = np.random.default_rng(seed)
        pictures = np.concatenate([self.features.splits[s] for s in splits])
        size = min(BATCH, len(pictures))
        while True:
            order = generator.permutation(pictures)[: len(pictures) // size * size]
            for indices in order.reshape(-1, size):
                views = generator.integers(len(self.features.tokens), size=size)
                yield self.load(indices, views * np.isin(indices, self.features.splits['train']))

    def train(self, job: Job) -> nn.Module:
        """Train; with a tuned rate, also on the pictures that it was tuned on."""
        model = self.build(job.variant, job.seed)
        parameters = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(parameters, job.rate, weight_decay=WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, job.rate, job.steps)
        splits = ('train',) if job.split == 'val' else ('train', 'val')
        for x, y in itertools.islice(self.batches(splits, job.seed), job.steps):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            schedule.step()
        return model

    def build(self, variant: Variant, seed: int) -> nn.Sequential:
        return build_head(variant, self.channels, len(self.features.classes), seed).to(DEVICE)

    @torch.no_grad()
    def run(self, job: Job) -> None:
        """Train, score, and store which pictures were right, a bit for each."""
        start, found = time.perf_counter(), []
        with torch.enable_grad():
            model = self.train(job).eval()
        indices = self.features.splits[job.split]
        for part in np.split(indices, range(4 * BATCH, len(indices), 4 * BATCH)):
            x, y = self.load(part)
            scores = model(x)
            # A training that diverged is right nowhere.
            found.append((scores.argmax(1) == y) & scores.isfinite().all(1))
        bits = np.packbits(torch.cat(found).cpu().numpy()).tobytes().hex()
        record = dict(asdict(job), correct=bits, seconds=time.perf_counter() - start)
        write_json(record, job.path(self.features))

    def profile(self, request: tuple[Variant, int]) -> Profile:
        """Build a variant, count what it costs, and measure some steps if they are not 0."""
        variant, steps = request
        start = time.perf_counter()
        pool = (model := self.build(variant, 0))[0]
        built = time.perf_counter()
        if steps:
            self.train(Job(variant, '', 1e-3, 0, steps, 'test'))
        trained = time.perf_counter() - 2 * built + start  # which built it again
        block = getattr(pool, 'block', None)
        tokens, channels = self.features.tokens.shape[2:]
        # The fingerprint names the weights, wherever they come from.
        source = dict(getattr(block, 'source', {}), source='', layers=0)
        return Profile(
            identity=digest([variant.family, variant.width, source]),
            embed_dims=getattr(block, 'embed_dims', 0),
            trainable=count_trainable(model),
            operations=count_operations(pool, tokens, channels, DEVICE),
            step_seconds=max(trained / max(steps, 1), 0.0),
            fixed_seconds=built - start,
        )


def read_result(features: Features, job: Job) -> tuple[np.ndarray, float] | None:
    """Return which pictures were right, bool ``[n]``, and the seconds; None: not trained yet."""
    try:
        stored = json.loads(job.path(features).read_text())
        bits = np.frombuffer(bytes.fromhex(stored['correct']), np.uint8)
        correct = np.unpackbits(bits).astype(bool)[: len(features.splits[job.split])]
        is_whole = len(correct) == len(features.splits[job.split])
        return (correct, stored['seconds']) if is_whole else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextmanager
def start_workers(features: Features, count: int) -> Iterator[Run]:
    """Start processes that train, each with one CPU thread; they end with this one.

    Args:
        features (Features): The tokens.
        count (int): Processes. 0: train in this process.

    Yields:
        Run: ``run(method, arguments)`` yields the results in order.
    """
    if not count:
        trainer = Trainer(features)
        yield lambda method, arguments: map(getattr(trainer, method), arguments)
        return
    os.environ['OMP_NUM_THREADS'] = '1'  # libraries read it when the server loads them
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload([__name__])
    tokens: Any = features.tokens
    if isinstance(tokens, np.memmap):  # pickle would send what is in the file
        place: Any = tokens.filename, tokens.dtype, 'r', tokens.offset, tokens.shape
        features = replace(features, tokens=place)
    with ProcessPoolExecutor(count, context, _prepare, (features,)) as pool:
        try:
            yield lambda method, arguments: pool.map(partial(_call, method), arguments)
        except BaseException:  # nobody waits for the trainings that run
            for child in multiprocessing.active_children():
                child.terminate()
            raise


_trainer: Trainer


def _prepare(features: Features) -> None:
    os.setsid()  # Ctrl-C is for the command, which ends its processes
    end_with_parent()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # some gradients of a block are as small, and slow
    MMLogger.get_instance('lm4ve-try', log_level='WARNING')  # each block logs its weights
    if isinstance(features.tokens, tuple):
        features = replace(features, tokens=np.memmap(*features.tokens))
    global _trainer
    _trainer = Trainer(features)


def _call(method: str, argument: Any) -> Any:
    return getattr(_trainer, method)(argument)
