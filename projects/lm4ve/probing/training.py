"""One training on cached tokens, its stored result, and the processes that train.

A training depends on its job, on the features and on nothing else: one CPU thread, an order of
its own, no clock. So trainings may run in any order and number at a time, and a study that was
killed ends with the same numbers.
"""

import base64
import functools
import hashlib
import itertools
import json
import multiprocessing
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.logging import MMLogger
from torch import Tensor, nn

from lm4ve.ablation.trial import end_with_parent
from lm4ve.errors import UserError
from lm4ve.files import write_json
from lm4ve.probing.features import Features
from lm4ve.probing.variants import BATCH, Variant, build_head, count_operations, count_trainable

#: Part of every result's key: another number for another recipe.
RECIPE = 1
WEIGHT_DECAY = 0.01
_FORKS = multiprocessing.get_context('forkserver')


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        variant (Variant): What is trained.
        identity (str): Hex; of the variant's computation and frozen weights.
        rate (float): The largest learning rate of the one-cycle schedule.
        seed (int): Of the initialization, of the order, and of a random block.
        steps (int): Batches.
        split (str): What is scored: 'val' while rates are tuned, 'test' at the end.
    """

    variant: Variant
    identity: str
    rate: float
    seed: int
    steps: int
    split: str

    def key(self, features: Features) -> str:
        """Return the name of its result: whatever changes the result changes it."""
        fields = {k: v for k, v in asdict(self).items() if k != 'variant'}
        place = torch.__version__, device()
        return digest([RECIPE, features.fingerprint, place, fields])


@dataclass(frozen=True)
class Profile:
    """What a variant is made of, and what it costs here.

    Attributes:
        identity (str): See :class:`Job`.
        embed_dims (int): D of a block; 0 without one.
        layers (tuple[int, ...]): Of a block, counted from 0.
        trainable (int): Parameters that train, those of norm and head included.
        operations (int): Floating-point operations of the forward pass of one sample.
        neck_operations (int): The same without norm and head.
        step_seconds, fixed_seconds (float): Of a training; 0 where nothing was measured.
    """

    identity: str
    embed_dims: int
    layers: tuple[int, ...]
    trainable: int
    operations: int
    neck_operations: int
    step_seconds: float
    fixed_seconds: float


def device() -> str:
    """Return the type of the device that trains."""
    return 'cuda' if torch.cuda.is_available() else 'cpu'


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:24]


# ---------------------------------------------------------------------------- training
class Trainer:
    """Trains variants on the tokens of one encoder and data set.

    Tokens are standardized for each channel by the pictures to train.

    Args:
        features (Features): The tokens.
    """

    def __init__(self, features: Features) -> None:
        self.features, self.device = features, device()
        self.channels, self.classes = features.tokens.shape[-1], len(features.classes)
        total, squares, count = 0.0, 0.0, 0
        train = features.splits['train']
        for part in np.array_split(train, len(train) // 512 + 1):
            x = features.tokens[0, part].reshape(-1, self.channels).astype(np.float64)
            total, squares, count = total + x.sum(0), squares + (x**2).sum(0), count + len(x)
        mean = total / count
        deviation = np.sqrt(np.maximum(squares / count - mean**2, 0)) + 1e-6
        scales = torch.tensor(np.stack([mean, deviation]), dtype=torch.float32)
        self.mean, self.deviation = scales.to(self.device)

    def load(self, indices: np.ndarray, views: np.ndarray | int = 0) -> Tensor:
        """Return standardized tokens, float32 ``[B, N, C]``."""
        tokens = torch.from_numpy(np.asarray(self.features.tokens[views, indices]))
        return (tokens.to(self.device).float() - self.mean) / self.deviation

    def batches(self, splits: Sequence[str], seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield tokens and labels without end, one permutation of the pictures after another.

        Only pictures to train have further views.
        """
        generator = np.random.default_rng(seed)
        has_views = np.zeros(len(self.features.labels), bool)
        has_views[self.features.splits['train']] = True
        pictures = np.concatenate([self.features.splits[s] for s in splits])
        size = min(BATCH, len(pictures))
        while True:
            order = generator.permutation(pictures)
            for start in range(0, len(order) - size + 1, size):
                indices = order[start : start + size]
                views = generator.integers(len(self.features.tokens), size=size)
                labels = torch.from_numpy(self.features.labels[indices])
                yield self.load(indices, views * has_views[indices]), labels.to(self.device)

    def build(self, variant: Variant, seed: int) -> nn.Module:
        return build_head(variant, self.channels, self.classes, seed).to(self.device)

    def train(self, job: Job) -> nn.Module:
        """Train; tuned rates are used with the pictures that they were tuned on, too."""
        splits = ('train',) if job.split == 'val' else ('train', 'val')
        model = self.build(job.variant, job.seed)
        options = dict(lr=job.rate, weight_decay=WEIGHT_DECAY)
        optimizer = torch.optim.AdamW(model.parameters(), **options)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, job.rate, job.steps)
        for x, y in itertools.islice(self.batches(splits, job.seed), job.steps):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            schedule.step()
        return model

    @torch.no_grad()
    def correct(self, model: nn.Module, split: str) -> np.ndarray:
        """Return which pictures of a split are classified rightly, bool ``[n]``."""
        indices, found = self.features.splits[split], []
        model.eval()
        for part in np.split(indices, range(4 * BATCH, len(indices), 4 * BATCH)):
            scores = model(self.load(part))
            labels = torch.from_numpy(self.features.labels[part]).to(self.device)
            # A training that diverged is right nowhere.
            found.append((scores.argmax(1) == labels) & scores.isfinite().all(1))
        return torch.cat(found).cpu().numpy()

    def run(self, job: Job) -> None:
        """Train, score and store the result."""
        start = time.perf_counter()
        correct = self.correct(self.train(job), job.split)
        write_result(self.features, job, correct, time.perf_counter() - start)

    def profile(self, variant: Variant, measured_steps: int) -> Profile:
        """Build a variant, and count and measure what it costs."""
        start = time.perf_counter()
        model = self.build(variant, 0)
        built = time.perf_counter() - start
        block = getattr(model.pool, 'block', None)
        source = {k: v for k, v in getattr(block, 'source', {}).items() if k != 'source'}
        tokens = self.features.tokens.shape[2]
        count = functools.partial(count_operations, tokens=tokens, channels=self.channels)
        seconds = []
        if measured_steps:
            for steps in (2, 2 + measured_steps):
                start = time.perf_counter()
                self.train(Job(variant, '', 1e-3, 0, steps, 'test'))
                seconds.append(time.perf_counter() - start)
        step = (seconds[1] - seconds[0]) / measured_steps if seconds else 0.0
        return Profile(
            identity=digest([variant.family, variant.width, source]),
            embed_dims=getattr(block, 'embed_dims', 0),
            layers=tuple(source.get('layers', ())),
            trainable=count_trainable(model),
            operations=count(model, device=self.device),
            neck_operations=count(model.pool, device=self.device),
            step_seconds=max(step, 1e-5),
            fixed_seconds=built,
        )


# ---------------------------------------------------------------------------- results
def result_path(features: Features, job: Job) -> Path:
    return features.folder / 'trainings' / f'{job.key(features)}.json'


def write_result(features: Features, job: Job, correct: np.ndarray, seconds: float) -> None:
    """Store a finished training: what was right, a bit for each picture."""
    write_json(
        dict(
            key=job.key(features),
            variant=job.variant.name,
            **{k: v for k, v in asdict(job).items() if k not in ('variant', 'identity')},
            count=len(correct),
            correct=base64.b64encode(np.packbits(correct).tobytes()).decode(),
            seconds=seconds,
        ),
        result_path(features, job),
    )


def read_result(features: Features, job: Job) -> tuple[np.ndarray, float] | None:
    """Return what was right, bool ``[n]``, and the seconds; None where there is no whole result."""
    try:
        stored = json.loads(result_path(features, job).read_text())
        bits = np.frombuffer(base64.b64decode(stored['correct']), np.uint8)
        correct = np.unpackbits(bits, count=stored['count']).astype(bool)
        whole = stored['key'] == job.key(features)
        whole &= len(correct) == len(features.splits[job.split])
        return (correct, float(stored['seconds'])) if whole else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


# ---------------------------------------------------------------------------- processes
class Pool:
    """Processes that train, each with one CPU thread; they end with this one.

    Args:
        features (Features): The tokens.
        count (int): Processes. 0: train in this process.
    """

    def __init__(self, features: Features, count: int) -> None:
        self.features, self.count = features, count

    def __enter__(self) -> 'Pool':
        if self.count:
            os.environ['OMP_NUM_THREADS'] = '1'  # libraries read it when the server loads them
            _FORKS.set_forkserver_preload(['lm4ve.probing.training'])
            options = dict(mp_context=_FORKS, initializer=_prepare)
            self.pool = ProcessPoolExecutor(self.count, initargs=(_pack(self.features),), **options)
        else:
            _prepare(self.features)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self.count:
            if kind is not None:  # nobody waits for the trainings that run
                for child in multiprocessing.active_children():
                    child.terminate()
            self.pool.shutdown(cancel_futures=True)

    def run(self, method: str, arguments: Iterable[tuple]) -> Iterator[tuple[tuple, Any]]:
        """Call a method of :class:`Trainer`; yield arguments and result as calls end."""
        if not self.count:
            yield from ((a, _call(method, *a)) for a in arguments)
            return
        calls = {self.pool.submit(_call, method, *a): a for a in arguments}
        try:
            for call in as_completed(calls):
                yield calls[call], call.result()
        except BrokenProcessPool as e:
            raise UserError(
                'A process that trains was killed, perhaps for its memory. Fix: --workers 1; the '
                'same command goes on where it was.'
            ) from e


_trainer: Trainer


def _pack(features: Features) -> Features:
    """Replace a memory map, whose content would be sent, by its place."""
    t: Any = features.tokens
    if not isinstance(t, np.memmap):
        return features
    return replace(features, tokens=(t.filename, t.dtype, 'r', t.offset, t.shape))


def _prepare(features: Features) -> None:
    global _trainer
    if multiprocessing.parent_process() is not None:
        os.setsid()  # Ctrl-C is for the command, which ends its processes
        end_with_parent()
        torch.set_num_threads(1)
        torch.set_flush_denormal(True)  # gradients of a block may be as small, and slow
        # Each block would log its weights.
        MMLogger.get_instance('lm4ve-try', log_level='WARNING')
    if isinstance(features.tokens, tuple):
        features = replace(features, tokens=np.memmap(*features.tokens))
    _trainer = Trainer(features)


def _call(method: str, *arguments: Any) -> Any:
    return getattr(_trainer, method)(*arguments)


def default_workers() -> int:
    """Return the cores that this process may use; 1 on a GPU."""
    return 1 if device() == 'cuda' else len(os.sched_getaffinity(0))
