"""A head that is trained on stored tokens: one of the two kinds of jobs.

A training depends on its specification, on the tokens and on nothing else: one CPU
thread, an order of its own, no clock. So trainings may run in any order and number at a
time, and a study that was killed ends with the same numbers.
"""

import functools
import itertools
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from lm4ve.runner.devices import find_device
from lm4ve.study.heads.baselines import fit_baseline
from lm4ve.study.heads.head import BATCH, HeadSpec, ProfiledHead, build_head
from lm4ve.study.job import Job, digest
from lm4ve.study.pictures.splits import draw_fit_and_val
from lm4ve.study.store import Result
from lm4ve.study.tokens.features import Features, load_features
from lm4ve.study.tokens.pooling import read_tokens

#: Part of every key: another number for another recipe.
RECIPE = 5
WEIGHT_DECAY = 0.01
#: The mean and the deviation of each channel are computed from at most so many pictures.
_PICTURES_TO_STANDARDIZE = 1024
#: Up to so many tokens a CPU computes attention step by step: torch's fused backward
#: pass in bfloat16 takes two to four times as long for 16 to 197 tokens.
_FEW_TOKENS = 256


def head_job(
    features: Features,
    head: ProfiledHead,
    value: float,
    seed: int,
    stage: str,
    steps: int = 0,
    dtype: str = 'float32',
    shots: int = 0,
) -> Job:
    """Return the job of a head.

    Args:
        features (Features): The tokens to train on; they are saved.
        head (ProfiledHead): What is trained; its name does not change the result.
        value (float): The largest learning rate of the one-cycle schedule; C of
            'logreg', k of 'knn'.
        seed (int): Decides the initialization, the order, a random block and the
            pictures of few shots.
        stage (str): What is trained on and scored: 'tune', 'draw' or 'test', see
            :meth:`Trainer.split`.
        steps (int): Batches; of no concern to a classifier of scikit-learn.
        dtype (str): The type of the products, 'float32' or 'bfloat16'.
        shots (int): Pictures of each class that it trains on; 0: all.
    """
    if head.is_fitted:
        steps = 0
    training = dict(
        value=value, seed=seed, stage=stage, steps=steps, dtype=dtype, shots=shots
    )
    library = sklearn.__version__ if head.is_fitted else torch.__version__
    device = find_device(None).type
    decides = [RECIPE, features.digest, library, device, head.identity, training]
    own = HeadSpec(**{name: getattr(head, name) for name in _SPEC_FIELDS})
    spec = dict(training, head=asdict(own), features=str(features.file.resolve()))
    cost = max(steps, 1) * (head.operations + 1e6)
    key = digest(decides)
    return Job('head', head.name, stage, value, seed, key, spec, cost)


_SPEC_FIELDS = tuple(field.name for field in fields(HeadSpec))


def run(spec: Mapping[str, Any], key: str, folder: Path, launcher: str) -> Result:
    """Train and score a head in this process.

    Args:
        spec (Mapping): The specification, of :func:`head_job`.
        key, folder, launcher: Of no concern to a head.
    """
    start = time.perf_counter()
    with _as_one_thread():
        trainer = _trainer_of(spec['features'])
        scored, predicted = trainer.run(spec)
    labels = trainer.features.data.labels[scored]
    accuracy = 100 * float((predicted == labels).mean())
    return Result(
        metrics=dict(accuracy=accuracy),
        scored=len(labels),
        total=len(labels),
        seconds=time.perf_counter() - start,
        predicted=predicted,
    )


def tidy(spec: Mapping[str, Any], folder: Path) -> None:
    """Do nothing: a head leaves nothing behind."""


@functools.lru_cache(maxsize=1)
def _trainer_of(file: str) -> 'Trainer':
    """Return the trainer of stored features, which a process reads once."""
    return Trainer(load_features(Path(file)))


@contextmanager
def _as_one_thread() -> Iterator[None]:
    """Set what a training's numbers and time depend on, inside this context."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    # Some gradients of a block are denormal numbers, with which CPUs are slow.
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(False)


class Trainer:
    """Trains heads on the tokens of one encoder and data set.

    Tokens are standardized for each channel by the pictures to train, at most 1,024 of
    them. A ReLU channel can be zero on all training pictures but not on test pictures;
    dividing by its near-zero deviation would swamp the rest. So deviations are at least
    10 % of their mean.

    Args:
        features (Features): The tokens.
    """

    def __init__(self, features: Features) -> None:
        self.features = features
        train = features.data.splits['train']
        step = math.ceil(len(train) / _PICTURES_TO_STANDARDIZE)
        mean, deviation = _mean_and_deviation(features.tokens, train[::step])
        device = find_device(None)
        self.mean = torch.from_numpy(mean).float().to(device)
        deviation = np.maximum(deviation, 0.1 * deviation.mean())
        self.deviation = torch.from_numpy(deviation).float().to(device)

    # ------------------------------------------------------------------------ batches
    def load(self, indices: np.ndarray, reads: str = 'tokens') -> tuple[Tensor, Tensor]:
        """Return standardized tokens, float32 ``[B, N, C]``, and labels, int64 ``[B]``.

        Args:
            indices (np.ndarray): The B pictures.
            reads (str): What a head reads of the tokens, see
                :func:`lm4ve.study.tokens.pooling.read_tokens`.
        """
        device = find_device(None)
        tokens = _move(self.features.tokens[indices], device).float()
        labels = _move(self.features.data.labels[indices], device)
        tokens.sub_(self.mean).div_(self.deviation + 1e-6)
        return read_tokens(tokens, reads, self.features.prefix), labels

    def pictures(self, pictures: np.ndarray, shots: int, seed: int) -> np.ndarray:
        """Return the indices of the pictures to train on, int64 ``[n]``.

        Args:
            pictures (np.ndarray): What they are drawn from.
            shots (int): So many of each class, or all that there are; 0: all pictures.
            seed (int): Decides which ones, if they are few.
        """
        if shots == 0:
            return pictures
        drawn = np.random.default_rng(seed).permutation(pictures)
        labels = self.features.data.labels[drawn]
        chosen = []
        for label in np.unique(labels):
            of_class = drawn[labels == label]
            chosen.append(of_class[:shots])
        return np.concatenate(chosen)

    def batches(
        self, pictures: np.ndarray, seed: int, reads: str = 'tokens'
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches as :meth:`load` returns them, without end.

        The pictures come in one permutation after another, of which what does not fill a
        batch is left out.

        Args:
            pictures (np.ndarray): The indices of the pictures.
            seed (int): Decides the order.
            reads (str): See :meth:`load`.
        """
        generator = np.random.default_rng(seed)
        size = min(BATCH, len(pictures))
        in_whole_batches = len(pictures) // size * size
        while True:
            order = generator.permutation(pictures)[:in_whole_batches]
            for indices in order.reshape(-1, size):
                yield self.load(indices, reads)

    # ----------------------------------------------------------------------- training
    def run(self, spec: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """Train a head and let it label pictures.

        Args:
            spec (Mapping): The specification, of :func:`head_job`.

        Returns:
            tuple: The n pictures that are scored, and the label of each, int64 ``[n]``.
        """
        seed = spec['seed']
        shots = spec['shots']
        to_train, scored = self.split(spec['stage'], seed, shots)
        pictures = self.pictures(to_train, shots, seed)
        head = HeadSpec(**spec['head'])
        if head.is_fitted:
            return scored, self._fit(head, spec['value'], pictures, scored)
        dtype = spec['dtype']
        model = self.train(head, spec['value'], seed, spec['steps'], pictures, dtype)
        return scored, self.predict(model, scored, head.reads, dtype)

    def split(self, stage: str, seed: int, shots: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the pictures to train on and those that are scored, int64 indices.

        Args:
            stage (str): 'tune': 'train', scored on 'val'. 'draw': four fifths of both,
                drawn by the seed, scored on the last fifth. 'test': both, scored on
                'test'; the value is fixed by then, so that the pictures which tuned it
                may train.
            seed (int): Draws.
            shots (int): Few shots are drawn from 'train' alone before the test.
        """
        data = self.features.data
        both = np.concatenate([data.splits['train'], data.splits['val']])
        if stage == 'tune':
            return data.splits['train'], data.splits['val']
        if stage == 'draw':
            return draw_fit_and_val(both, data.labels, data.groups, seed)
        if shots:
            return data.splits['train'], data.splits['test']
        return both, data.splits['test']

    def build(self, head: HeadSpec, seed: int) -> nn.Sequential:
        """Build a head for these tokens and classes; see :func:`build_head`."""
        channels = self.features.shape[-1]
        classes = len(self.features.data.classes)
        return build_head(head, channels, classes, seed).to(find_device(None))

    def train(
        self,
        head: HeadSpec,
        rate: float,
        seed: int,
        steps: int,
        pictures: np.ndarray,
        dtype: str,
    ) -> nn.Sequential:
        """Train a head.

        Args:
            head (HeadSpec): What to train.
            rate (float): The largest learning rate of the one-cycle schedule.
            seed (int): Decides the initialization and the order.
            steps (int): How many batches to train on.
            pictures (np.ndarray): The indices of the pictures to train on.
            dtype (str): The type of the products, 'float32' or 'bfloat16'.

        Returns:
            nn.Sequential: The trained head, in evaluation mode.
        """
        model = self.build(head, seed)
        batches = self.batches(pictures, seed, head.reads)
        train_head(model, rate, steps, batches, dtype)
        return model.eval()

    def _fit(
        self, head: HeadSpec, value: float, pictures: np.ndarray, scored: np.ndarray
    ) -> np.ndarray:
        """Fit a classifier of scikit-learn; return the labels that it gives, int64 ``[n]``.

        Args:
            head (HeadSpec): A fitted one.
            value (float): Its C or k.
            pictures (np.ndarray): The pictures to train on.
            scored (np.ndarray): The n pictures to classify.
        """
        x, labels = self._vectors(pictures, head.reads)
        model = fit_baseline(head.family, value, x, labels)
        to_classify, _ = self._vectors(scored, head.reads)
        predicted: np.ndarray = model.predict(to_classify)
        return predicted

    def _vectors(
        self, indices: np.ndarray, reads: str
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return a vector of each of n pictures, float32 ``[n, C]``, and labels ``[n]``."""
        vectors = []
        labels = []
        for part in _parts(indices):
            x, own_labels = self.load(part, reads)
            vectors.append(x.mean(1).cpu().numpy())
            labels.append(own_labels.cpu().numpy())
        return np.concatenate(vectors), np.concatenate(labels)

    @torch.no_grad()
    def predict(
        self, model: nn.Sequential, indices: np.ndarray, reads: str, dtype: str
    ) -> np.ndarray:
        """Return the labels that a head gives n pictures, int64 ``[n]``; -1: not finite.

        Args:
            model (nn.Sequential): What :meth:`train` returns.
            indices (np.ndarray): The n pictures.
            reads (str): See :meth:`load`.
            dtype (str): The type of the products.
        """
        predicted = []
        for part in _parts(indices):
            x, _ = self.load(part, reads)
            scores = compute_scores(model, x, dtype)
            is_finite = scores.isfinite().all(1)
            predicted.append(torch.where(is_finite, scores.argmax(1), -1))
        return torch.cat(predicted).cpu().numpy()


def train_head(
    model: nn.Sequential,
    rate: float,
    steps: int,
    batches: Iterator[tuple[Tensor, Tensor]],
    dtype: str,
) -> None:
    """Train a head by AdamW with a one-cycle schedule, in place.

    Args:
        model (nn.Sequential): What :func:`build_head` returns.
        rate (float): The largest learning rate.
        steps (int): How many batches to train on.
        batches (Iterator): Tokens and labels, see :meth:`Trainer.load`.
        dtype (str): The type of the products.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, rate, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps)
    for x, labels in itertools.islice(batches, steps):
        optimizer.zero_grad()
        F.cross_entropy(compute_scores(model, x, dtype), labels).backward()
        optimizer.step()
        schedule.step()


def compute_scores(model: nn.Sequential, x: Tensor, dtype: str) -> Tensor:
    """Return a head's logits in float32, ``[B, classes]``.

    The norm and the classifier are computed in float32, since they cost nothing.

    Args:
        model (nn.Sequential): What :func:`build_head` returns.
        x (Tensor): Tokens, float32 ``[B, N, C]``.
        dtype (str): The type of the products before them.
    """
    pool, norm, classifier = model
    precision = torch.autocast(x.device.type, torch.bfloat16, dtype == 'bfloat16')
    with _attention_of(x), precision:
        pooled = pool(x)
    scores: Tensor = classifier(norm(pooled.float()))
    return scores


def _mean_and_deviation(
    tokens: np.ndarray, indices: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return each channel's mean and standard deviation over pictures and tokens, ``[C]``.

    Sums in float64 depend neither on the number of threads nor on the order.

    Args:
        tokens (np.ndarray): float16 ``[n, N, C]``.
        indices (np.ndarray): The pictures that count.
    """
    total = np.zeros(tokens.shape[2])
    squares = np.zeros(tokens.shape[2])
    for part in _parts(indices):
        values = tokens[part].astype(np.float64)
        total += values.sum((0, 1))
        squares += (values * values).sum((0, 1))
    count = len(indices) * tokens.shape[1]
    mean = total / count
    variance = (squares - count * mean * mean) / max(count - 1, 1)
    return mean, np.sqrt(np.maximum(variance, 0.0))


def _attention_of(x: Tensor) -> AbstractContextManager[None]:
    """Return the context in which attention over tokens ``[B, N, C]`` is fast."""
    if x.device.type == 'cpu' and x.shape[1] <= _FEW_TOKENS:
        return sdpa_kernel(SDPBackend.MATH)
    return nullcontext()


def _parts(indices: np.ndarray) -> list[np.ndarray]:
    """Split indices into larger batches than those of training: no gradients, more room."""
    size = 4 * BATCH
    return np.split(indices, range(size, len(indices), size))


def _move(values: np.ndarray, device: torch.device) -> Tensor:
    """Return an array on a device, without waiting for what that computes before."""
    tensor = torch.from_numpy(values)
    if device.type == 'cpu':
        return tensor
    # From other memory a copy may wait.
    return tensor.pin_memory().to(device, non_blocking=True)
