"""One training on cached tokens, its stored result, and the processes that train.

A training depends on its job, on the features and on nothing else: one CPU thread, an
order of its own, no clock. So trainings may run in any order and number at a time, and
a study that was killed ends with the same numbers.
"""

import hashlib
import itertools
import json
import math
import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.logging import MMLogger
from torch import Tensor, nn

from lm4ve.ablation.trial import end_with_parent
from lm4ve.blocks import count_parameters
from lm4ve.files import read_json, write_json
from lm4ve.probing.features import Features
from lm4ve.probing.variants import BATCH, Variant, build_head, count

#: Part of every result's key: another number for another recipe.
RECIPE = 3
WEIGHT_DECAY = 0.01
DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
#: Calls a method of :class:`Trainer` for each argument.
Run = Callable[..., Iterable[Any]]
#: Which pictures were right, bool ``[n]``, and the seconds of the training.
Result = tuple[np.ndarray, float]


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        variant (Variant): What is trained; its name does not change the result.
        rate (float): The largest learning rate of the one-cycle schedule.
        seed (int): Decides the initialization, the order and a random block.
        steps (int): Batches.
        split (str): What is scored: 'val' while rates are tuned, 'test' at the end.
    """

    variant: Variant
    rate: float
    seed: int
    steps: int
    split: str

    def path(self, features: Features) -> Path:
        """Return the file of its result; whatever changes the result changes the name."""
        fields = dict(vars(self), identity=self.variant.identity)
        del fields['variant']
        key = digest([RECIPE, features.fingerprint, torch.__version__, DEVICE, fields])
        return features.folder / 'trainings' / f'{key}.json'


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:24]


class Trainer:
    """Trains variants on the tokens of one encoder and data set.

    Tokens are standardized for each channel by (at most 1,024 of) the pictures to
    train. A ReLU's channel may be silent in these and not in others; of a deviation
    near zero it would get values of a million there, beside which the norm leaves
    nothing. So a tenth of the channels' mean deviation is the least that counts.
    """

    def __init__(self, features: Features) -> None:
        self.features, train = features, features.data.splits['train']
        part = torch.from_numpy(
            features.tokens[0, train[:: len(train) // 1024 + 1]]
        ).float()
        deviation = part.std((0, 1))
        self.mean = part.mean((0, 1)).numpy()
        self.deviation = deviation.clamp(min=0.1 * float(deviation.mean())).numpy()

    def load(
        self, indices: np.ndarray, views: np.ndarray | int = 0
    ) -> tuple[Tensor, Tensor]:
        """Return standardized tokens, float32 ``[B, N, C]``, and labels, int64 ``[B]``."""
        picked = (
            self.features.tokens[views, indices],
            self.features.data.labels[indices],
        )
        arrays = (*picked, self.mean, self.deviation)
        x, y, mean, deviation = (torch.from_numpy(a).to(DEVICE) for a in arrays)
        return (x.float() - mean) / (deviation + 1e-6), y

    def batches(
        self, splits: Sequence[str], seed: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches without end, one permutation of the pictures after another.

        Only the split 'train' has further views.
        """
        generator, own = np.random.default_rng(seed), self.features.data.splits
        pictures = np.concatenate([own[s] for s in splits])
        size = min(BATCH, len(pictures))
        while True:
            order = generator.permutation(pictures)[: len(pictures) // size * size]
            for indices in order.reshape(-1, size):
                views = generator.integers(self.features.shape[0], size=size)
                yield self.load(indices, views * np.isin(indices, own['train']))

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
        channels, classes = self.features.shape[-1], len(self.features.data.classes)
        return build_head(variant, channels, classes, seed).to(DEVICE)

    @torch.no_grad()
    def run(self, job: Job) -> None:
        """Train, score, and store which pictures were right, a bit for each."""
        start, found = time.perf_counter(), []
        with torch.enable_grad():
            model = self.train(job).eval()
        indices = self.features.data.splits[job.split]
        for part in np.split(indices, range(4 * BATCH, len(indices), 4 * BATCH)):
            x, y = self.load(part)
            scores = model(x)
            # A training that diverged is right nowhere.
            found.append((scores.argmax(1) == y) & scores.isfinite().all(1))
        bits = np.packbits(torch.cat(found).cpu().numpy()).tobytes().hex()
        record = dict(asdict(job), correct=bits, seconds=time.perf_counter() - start)
        write_json(record, job.path(self.features))

    def profile(self, variant: Variant, steps: int) -> Variant:
        """Build a variant, count what it costs, and measure some steps if they are not 0."""
        start = time.perf_counter()
        pool = (model := self.build(variant, 0))[0]
        built = time.perf_counter()
        if steps:
            self.train(Job(variant, 1e-3, 0, steps, 'test'))
        trained = time.perf_counter() - 2 * built + start  # which built it again
        block = getattr(pool, 'block', None)
        tokens, channels = self.features.shape[2:]
        # The fingerprint names the weights, wherever they come from.
        source = dict(getattr(block, 'source', {}), source='', layers=0)
        return replace(
            variant,
            identity=digest([variant.family, variant.width, source]),
            embed_dims=getattr(block, 'embed_dims', 0),
            trainable=count_parameters(model)[0],
            operations=count(pool, tokens, channels, DEVICE)['operations'],
            step_seconds=max(trained / max(steps, 1), 0.0),
            fixed_seconds=built - start,
        )


def read_result(features: Features, job: Job, since: float = 0.0) -> Result | None:
    """Return what a training stored since some time.

    Returns:
        Result or None: None where it stored nothing, or what it stored is damaged.
    """
    path, total = job.path(features), len(features.data.splits[job.split])
    stored = read_json(path)
    if not isinstance(stored, dict) or path.stat().st_mtime < since:
        return None
    bits: Any = stored.get('correct')
    seconds: Any = stored.get('seconds')
    if not isinstance(bits, str) or type(seconds) not in (int, float):
        return None
    if not 0 <= seconds < math.inf:
        return None
    try:
        packed = np.frombuffer(bytes.fromhex(bits), np.uint8)
    except ValueError:
        return None
    if len(packed) != math.ceil(total / 8):
        return None
    return np.unpackbits(packed).astype(bool)[:total], float(seconds)


@contextmanager
def start_workers(features: Features, processes: int) -> Iterator[Run]:
    """Start processes that train, each with one CPU thread; they end with this one.

    Args:
        features (Features): The tokens.
        processes (int): 0: train in this process.

    Yields:
        Run: ``run(method, *arguments)`` yields the results in order, as ``map``.
    """
    if processes:
        torch.set_num_threads(1)  # also for the tokens' mean, whose digits depend on it
        os.environ['OMP_NUM_THREADS'] = (
            '1'  # libraries read it when the server loads them
        )
    trainer = Trainer(features)
    if not processes:
        yield lambda method, *arguments: map(getattr(trainer, method), *arguments)
        return
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(processes, context, _prepare) as pool:
        try:
            yield lambda method, *arguments: pool.map(
                getattr(trainer, method), *arguments
            )
        except BaseException:  # nobody waits for the trainings that run
            for child in multiprocessing.active_children():
                child.terminate()
            raise


def _prepare() -> None:
    os.setsid()  # Ctrl-C is for the command, which ends its processes
    end_with_parent()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # some gradients of a block are as small, and slow
    MMLogger.get_instance(
        'lm4ve-try', log_level='WARNING'
    )  # each block logs its weights
