"""One training on cached tokens.

A training depends on its job, on the features and on nothing else: one CPU thread, an
order of its own, no clock. So trainings may run in any order and number at a time, and
a study that was killed ends with the same numbers.
"""

import itertools
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lm4ve.blocks import count_parameters
from lm4ve.probing.features import Features
from lm4ve.probing.heads import (
    BATCH,
    HeadSpec,
    ProfiledHead,
    build_head,
    count_operations,
)
from lm4ve.probing.results import DEVICE, Job, Result, digest, write_result

WEIGHT_DECAY = 0.01
#: The learning rate of the steps that are only timed; it changes no result.
_TIMED_RATE = 1e-3
#: The mean and the deviation of each channel are computed from at most so many pictures.
_PICTURES_TO_STANDARDIZE = 1024


class Trainer:
    """Trains heads on the tokens of one encoder and data set.

    Tokens are standardized for each channel by (at most 1,024 of) the pictures to
    train. A ReLU channel can be zero on all training pictures but not on test pictures;
    dividing by its near-zero deviation would swamp the rest. So deviations are at least
    10 % of their mean.

    Args:
        features (Features): The tokens.
    """

    def __init__(self, features: Features) -> None:
        self.features = features
        train = features.data.splits['train']
        step = len(train) // _PICTURES_TO_STANDARDIZE + 1
        plain_view = 0
        tokens = torch.from_numpy(features.tokens[plain_view, train[::step]]).float()
        # Both are over pictures and tokens, [C].
        deviation = tokens.std((0, 1))
        least = 0.1 * float(deviation.mean())
        # Arrays, since a trainer on a GPU is sent to other processes.
        self.mean = tokens.mean((0, 1)).numpy()
        self.deviation = deviation.clamp(min=least).numpy()

    # ------------------------------------------------------------------------ batches
    def load(
        self, indices: np.ndarray, views: np.ndarray | int = 0
    ) -> tuple[Tensor, Tensor]:
        """Return standardized tokens, float32 ``[B, N, C]``, and labels, int64 ``[B]``.

        Args:
            indices (np.ndarray): The B pictures.
            views (np.ndarray | int): The view of each picture, or one for all; 0 is the
                plain one.
        """
        tokens = _on_device(self.features.tokens[views, indices])
        labels = _on_device(self.features.data.labels[indices])
        mean = _on_device(self.mean)
        deviation = _on_device(self.deviation)
        return (tokens.float() - mean) / (deviation + 1e-6), labels

    def batches(
        self, splits: Sequence[str], seed: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches as :meth:`load` returns them, without end.

        The pictures come in one permutation after another, of which what does not fill a
        batch is left out. Each picture of the split 'train' is shown in a random view;
        the others have only the first.

        Args:
            splits (Sequence[str]): The splits whose pictures are drawn.
            seed (int): Decides the order and the views.
        """
        generator = np.random.default_rng(seed)
        indices_of = self.features.data.splits
        pictures = np.concatenate([indices_of[split] for split in splits])
        size = min(BATCH, len(pictures))
        in_whole_batches = len(pictures) // size * size
        while True:
            order = generator.permutation(pictures)[:in_whole_batches]
            for indices in order.reshape(-1, size):
                views = generator.integers(self.features.shape[0], size=size)
                views[~np.isin(indices, indices_of['train'])] = 0
                yield self.load(indices, views)

    # ----------------------------------------------------------------------- training
    def build(self, head: HeadSpec, seed: int) -> nn.Sequential:
        """Build a head for these tokens and classes; see :func:`build_head`."""
        channels = self.features.shape[-1]
        classes = len(self.features.data.classes)
        return build_head(head, channels, classes, seed).to(DEVICE)

    def train(
        self,
        head: HeadSpec,
        rate: float,
        seed: int,
        steps: int,
        splits: Sequence[str],
    ) -> nn.Module:
        """Train a head.

        Args:
            head (HeadSpec): What to train.
            rate (float): The largest learning rate of the one-cycle schedule.
            seed (int): Decides the initialization and the order.
            steps (int): How many batches to train on.
            splits (Sequence[str]): The splits whose pictures are trained on.

        Returns:
            nn.Module: The trained head, in training mode.
        """
        model = self.build(head, seed)
        parameters = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(parameters, rate, weight_decay=WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps)
        batches = self.batches(splits, seed)
        for x, labels in itertools.islice(batches, steps):
            optimizer.zero_grad()
            F.cross_entropy(model(x), labels).backward()
            optimizer.step()
            schedule.step()
        return model

    def run(self, job: Job) -> None:
        """Train and score the head of a job, and store which pictures were right."""
        start = time.perf_counter()
        splits = ['train']
        if job.split == 'test':
            # The rate is fixed by now, so that the pictures it was tuned on may train.
            splits.append('val')
        model = self.train(job.head, job.rate, job.seed, job.steps, splits).eval()
        correct = self._score(model, self.features.data.splits[job.split])
        seconds = time.perf_counter() - start
        write_result(self.features, job, Result(correct, seconds))

    @torch.no_grad()
    def _score(self, model: nn.Module, indices: np.ndarray) -> np.ndarray:
        """Return which of n pictures a head classifies right, bool ``[n]``."""
        size = 4 * BATCH  # no gradients, so larger batches fit
        correct = []
        for part in np.split(indices, range(size, len(indices), size)):
            x, labels = self.load(part)
            scores = model(x)
            # After a training that diverged, scores are not finite: no picture is right.
            is_finite = scores.isfinite().all(1)
            correct.append((scores.argmax(1) == labels) & is_finite)
        return torch.cat(correct).cpu().numpy()

    # ---------------------------------------------------------------------- profiling
    def profile(self, head: HeadSpec, steps: int) -> ProfiledHead:
        """Build a head, count its parameters and operations, and time some steps of training.

        Args:
            head (HeadSpec): The head.
            steps (int): The number of steps to time; 0 times none.

        Returns:
            ProfiledHead: The head with these numbers, and with an identity that heads
            share if they compute the same with the same frozen weights.
        """
        start = time.perf_counter()
        model = self.build(head, seed=0)
        build_seconds = time.perf_counter() - start
        step_seconds = 0.0
        if steps > 0:
            step_seconds = self._time_step(head, steps, build_seconds)

        pool: Any = model[0]  # a neck, or a plain or attentive mean
        block = getattr(pool, 'block', None)
        # A block's record has a fingerprint of its weights. So the place they were read
        # from and the layer's number are left out: equal weights are equal from anywhere.
        source = dict(getattr(block, 'source', {}), source='', layers=0)
        tokens, channels = self.features.shape[2:]
        trainable, _ = count_parameters(model)
        return ProfiledHead(
            name=head.name,
            family=head.family,
            words=head.words,
            block=head.block,
            width=head.width,
            identity=digest([head.family, head.width, source]),
            embed_dims=getattr(block, 'embed_dims', 0),
            trainable=trainable,
            operations=count_operations(pool, tokens, channels, DEVICE),
            step_seconds=step_seconds,
            fixed_seconds=build_seconds,
        )

    def _time_step(self, head: HeadSpec, steps: int, build_seconds: float) -> float:
        """Return the mean seconds of a training step; the head is built anew and thrown away.

        Args:
            head (HeadSpec): The head.
            steps (int): How many steps to time.
            build_seconds (float): How long building the head takes, which is subtracted.
        """
        start = time.perf_counter()
        self.train(head, _TIMED_RATE, seed=0, steps=steps, splits=['train', 'val'])
        seconds = time.perf_counter() - start - build_seconds
        # Building may have been faster this time.
        return max(seconds / steps, 0.0)


def _on_device(values: np.ndarray) -> Tensor:
    """Return an array on the device, without waiting for what it computes before."""
    return torch.from_numpy(values).to(DEVICE, non_blocking=True)
