"""One training on cached tokens.

A training depends on its job, on the features and on nothing else: one CPU thread, an
order of its own, no clock. So trainings may run in any order and number at a time, and
a study that was killed ends with the same numbers.
"""

import itertools
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from lm4ve.probing.baselines import fit_baseline
from lm4ve.probing.features import Features
from lm4ve.probing.heads import BATCH, HeadSpec, build_head
from lm4ve.probing.pooling import read_tokens
from lm4ve.probing.results import Job, Result, write_result
from lm4ve.runner.devices import find_device

WEIGHT_DECAY = 0.01
#: The mean and the deviation of each channel are computed from at most so many pictures.
_PICTURES_TO_STANDARDIZE = 1024
#: Up to so many tokens a CPU computes attention step by step: torch's fused backward
#: pass in bfloat16 takes two to four times as long for 16 to 197 tokens.
_FEW_TOKENS = 256


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
        least = 0.1 * deviation.mean()
        # On the CPU, since the trainer is sent to the processes that train.
        self.mean = torch.from_numpy(mean).float()
        self.deviation = torch.from_numpy(np.maximum(deviation, least)).float()

    # ------------------------------------------------------------------------ batches
    def load(self, indices: np.ndarray, reads: str = 'tokens') -> tuple[Tensor, Tensor]:
        """Return standardized tokens, float32 ``[B, N, C]``, and labels, int64 ``[B]``.

        Args:
            indices (np.ndarray): The B pictures.
            reads (str): What a head reads of the tokens, see
                :func:`lm4ve.probing.pooling.read_tokens`.
        """
        device = find_device(None)
        tokens = _move(self.features.tokens[indices], device).float()
        labels = _move(self.features.data.labels[indices], device)
        # They move with the first batch of a process, and stay.
        self.mean = self.mean.to(device)
        self.deviation = self.deviation.to(device)
        tokens.sub_(self.mean).div_(self.deviation + 1e-6)
        return read_tokens(tokens, reads, self.features.prefix), labels

    def pictures(self, splits: Sequence[str], shots: int, seed: int) -> np.ndarray:
        """Return the indices of the pictures to train on, int64 ``[n]``.

        Args:
            splits (Sequence[str]): The splits that they come from.
            shots (int): So many of each class, or all that there are; 0: all pictures.
            seed (int): Decides which ones, if they are few.
        """
        indices_of = self.features.data.splits
        pictures = np.concatenate([indices_of[split] for split in splits])
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
    def run(self, job: Job) -> Job:
        """Train and score the head of a job, and store what it gave each picture.

        Returns:
            Job: The job, for who waits for several.
        """
        start = time.perf_counter()
        scored = self.features.data.splits[job.split]
        pictures = self.pictures(job.trained_splits, job.shots, job.seed)
        if job.head.is_fitted:
            predicted = self._fit(job, pictures, scored)
        else:
            head = job.head
            model = self.train(
                head, job.tuned, job.seed, job.steps, pictures, job.dtype
            )
            predicted = self.predict(model, scored, head.reads, job.dtype)
        seconds = time.perf_counter() - start
        write_result(self.features, job, Result(predicted, seconds))
        return job

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

    def _fit(self, job: Job, pictures: np.ndarray, scored: np.ndarray) -> np.ndarray:
        """Fit a classifier of scikit-learn; return the labels that it gives, int64 ``[n]``.

        Args:
            job (Job): Its head is a fitted one.
            pictures (np.ndarray): The pictures to train on.
            scored (np.ndarray): The n pictures to classify.
        """
        x, labels = self._vectors(pictures, job.head.reads)
        model = fit_baseline(job.head.family, job.tuned, x, labels)
        to_classify, _ = self._vectors(scored, job.head.reads)
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
