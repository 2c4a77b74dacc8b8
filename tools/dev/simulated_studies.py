"""Judge the verdicts of a study by studies whose truth is known.

    python tools/dev/simulated_studies.py                    # print the tables
    python tools/dev/simulated_studies.py --studies 20       # a first look
    python tools/dev/simulated_studies.py --write docs/guides/try.md

A head is right on a picture if a sum of normal variables is above zero: how easy the
picture is for all heads, head x picture, head x group, rate x picture, the seed, and
seed x picture. Their spread was fitted to stored studies: on digits, where 94 % are
right, and on emoji (67 %). Rates are tuned as `lm4ve.study.tune` does it: the accuracy of
a rate falls with its distance from the best one, and val pictures, drawn by each seed
from the same pool, say which is best. Pictures and seeds of each study are drawn anew.

The criteria were fixed before the first result:

- without a difference, studies with a verdict "better" or "worse": at most 5 %;
- 95 % intervals that cover the truth: at least 93 %;
- with 3 points more, 8 seeds, no groups and nothing to tune: "better" in at least 80 %
  of comparisons on 300 pictures and 97 % on 2,000 (on digits; emoji are harder, and 300
  of them decided 32 % before there was one interval);
- with a gain of twice the margin: "no difference" or "worse" in at most 5 %.

A figure fails if it is on the wrong side by more than 1.64 of its standard errors.
"""

import argparse
import gc
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.stats import norm

from lm4ve.study import tune
from lm4ve.study.compare import compare

MARGIN = 1.0
START = '<!-- made by tools/dev/simulated_studies.py -->'
END = '<!-- end of simulated studies -->'
#: All that are drawn at once; smaller studies are the first part of them.
HEADS, SEEDS, PICTURES = 13, 8, 2080
#: The spread of rate x picture, a part of that of head x picture.
RATE_SD = 0.15
GROUP_SD = 0.3
RUNGS = tuple(range(7))
#: The true best one: a neighbour of the middle, where tuning begins.
BEST_RUNG = 4
#: So many times the val pictures of a seed can be drawn as val.
POOL = 4
#: Of uneven groups the largest has so many times as many as the smallest.
UNEVEN = 100


class Regime(NamedTuple):
    """A data set: accuracy, and the spread of head x picture, seed x picture, and seeds."""

    accuracy: float
    picture: float
    draw: float
    seed: float


REGIMES = {
    'digits': Regime(0.94, 0.20, 0.18, 0.02),
    'emoji': Regime(0.67, 0.22, 0.35, 0.02),
}
#: sd of the true accuracy that one tuning takes, in points -> regime -> val pictures, and
#: points that each rung further from the best one loses. Fitted, so that the loss is as
#: large as the noise of val: smaller ones matter less, larger ones are seen.
TUNINGS: dict[float, dict[str, tuple[int, float]]] = {
    0.3: {'digits': (200, 0.4), 'emoji': (1000, 0.4)},
    0.7: {'digits': (150, 2.0), 'emoji': (700, 1.1)},
    1.4: {'digits': (50, 2.0), 'emoji': (200, 3.0)},
}


@dataclass(frozen=True)
class Truth:
    """What is true of simulated studies.

    Attributes:
        regime (str): One of :data:`REGIMES`.
        tuning (float): One of :data:`TUNINGS`, or 0 for nothing to tune.
        group_size (int): Pictures in a group.
        uneven (bool): Groups have all sizes: the largest hundred times the smallest.
        gain (float): Points by which the first head is better than the others.
        shared (bool): All seeds take the rate of one tuning.
    """

    regime: str
    tuning: float = 0.0
    group_size: int = 1
    uneven: bool = False
    gain: float = 0.0
    shared: bool = False


class Size(NamedTuple):
    """The part of a study that is looked at."""

    rows: int
    seeds: int
    pictures: int


@dataclass
class Tally:
    """What studies of one truth and size led to.

    Attributes:
        studies, wrong (int): All, and those with any "better" or "worse".
        covered, intervals (int): 95 % intervals, and those that cover the truth.
        verdicts (Counter[str]): Of all comparisons.
    """

    studies: int = 0
    wrong: int = 0
    covered: int = 0
    intervals: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)

    def percent(self, *verdicts: str) -> float:
        """Return how many comparisons had one of these verdicts."""
        count = sum(self.verdicts[verdict] for verdict in verdicts)
        return 100 * count / self.verdicts.total()


# -------------------------------------------------------------------------------
# a study
def losses(truth: Truth) -> np.ndarray:
    """Return the points that each rung loses, ``[rungs]``."""
    if not truth.tuning:
        return np.zeros(len(RUNGS))
    _, loss_of_rung = TUNINGS[truth.tuning][truth.regime]
    return loss_of_rung * np.abs(np.array(RUNGS) - BEST_RUNG)


def draw_pictures(
    rng: np.random.Generator, truth: Truth, easy: np.ndarray, gain: float = 0.0
) -> np.ndarray:
    """Return the normal variable of a head without its seeds, ``[rungs, pictures]``.

    Args:
        rng (np.random.Generator): Draws.
        truth (Truth): What is true.
        easy (np.ndarray): How easy the pictures are for all heads.
        gain (float): The head's, in points.
    """
    regime = REGIMES[truth.regime]
    variance = 1 + regime.picture**2 + regime.draw**2 + regime.seed**2
    if truth.group_size > 1:
        variance += GROUP_SD**2
    share = regime.accuracy + (gain - losses(truth)) / 100
    mean = norm.ppf(share) * np.sqrt(variance)
    head_sd = np.sqrt(regime.picture**2 - RATE_SD**2)
    of_head = head_sd * rng.standard_normal(len(easy))
    of_rate = RATE_SD * rng.standard_normal((len(RUNGS), len(easy)))
    return easy + mean[:, None] + of_head + of_rate


def train(
    rng: np.random.Generator, truth: Truth, pictures: np.ndarray, seeds: int
) -> np.ndarray:
    """Return which pictures are right, each row with a seed, ``[seeds, pictures]``.

    Args:
        rng (np.random.Generator): Draws.
        truth (Truth): What is true.
        pictures (np.ndarray): From :func:`draw_pictures`, one row or one a seed.
        seeds (int): How many.
    """
    regime = REGIMES[truth.regime]
    of_seed = regime.seed * rng.standard_normal((seeds, 1))
    of_draw = rng.standard_normal((seeds, pictures.shape[1]), np.float32)
    return pictures + of_seed + regime.draw * of_draw > 0


def choose_rungs(rng: np.random.Generator, truth: Truth) -> np.ndarray:
    """Return the rung that each seed of each head takes, ``[heads, seeds]``."""
    rungs = np.full((HEADS, SEEDS), BEST_RUNG)
    if not truth.tuning:
        return rungs
    val, _ = TUNINGS[truth.tuning][truth.regime]
    easy = rng.standard_normal(POOL * val)
    for head in range(HEADS):
        pictures = draw_pictures(rng, truth, easy)
        first = tune_on_val(rng, truth, pictures, val)
        correct = search(first)
        best = tune.value_of_seed(list(correct), accuracies_of(correct))
        kept = [best] if truth.shared else tune.within_noise(correct)
        for seed in range(SEEDS):
            if len(kept) == 1:
                rungs[head, seed] = kept[0]
                continue
            own = tune_on_val(rng, truth, pictures, val)
            accuracies = dict(enumerate(own.mean(1)))
            rungs[head, seed] = tune.value_of_seed(kept, accuracies)
    return rungs


def tune_on_val(
    rng: np.random.Generator, truth: Truth, pictures: np.ndarray, val: int
) -> np.ndarray:
    """Return which of the val pictures, drawn anew, are right: ``[rungs, val]``."""
    drawn = rng.permutation(pictures.shape[1])[:val]
    return train(rng, truth, pictures[:, drawn], len(RUNGS))


def search(right: np.ndarray) -> dict[int, np.ndarray]:
    """Return rung -> its row, of the rungs that the shared tuning tries."""
    correct: dict[int, np.ndarray] = {}
    rungs = tune.next_values(RUNGS, {})
    while rungs:
        correct |= {rung: right[rung] for rung in rungs}
        rungs = tune.next_values(RUNGS, accuracies_of(correct))
    return {rung: correct[rung] for rung in RUNGS if rung in correct}


def accuracies_of(correct: Mapping[int, np.ndarray]) -> dict[int, float]:
    """Return rung -> accuracy."""
    return {rung: float(right.mean()) for rung, right in correct.items()}


def draw_groups(rng: np.random.Generator, truth: Truth) -> np.ndarray:
    """Return the group of each test picture, ``[pictures]``."""
    if not truth.uneven:
        return np.arange(PICTURES) // truth.group_size
    sizes = np.exp(rng.uniform(0, np.log(UNEVEN), PICTURES))
    sizes *= truth.group_size / sizes.mean()
    return np.searchsorted(np.cumsum(sizes), np.arange(PICTURES))


def draw_study(
    rng: np.random.Generator, truth: Truth
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Return head -> points ``[seeds, pictures]``, the groups, and the rungs taken."""
    rungs = choose_rungs(rng, truth)
    groups = draw_groups(rng, truth)
    easy = rng.standard_normal(PICTURES)
    scores = {}
    for head in range(HEADS):
        gain = 0.0 if head else truth.gain
        pictures = draw_pictures(rng, truth, easy, gain)[rungs[head]]
        if truth.group_size > 1:
            pictures += GROUP_SD * rng.standard_normal(groups.max() + 1)[groups]
        scores[f'head{head}'] = 100.0 * train(rng, truth, pictures, SEEDS)
    return scores, groups, rungs


# -------------------------------------------------------------------------------
# many studies
def measure(
    truth: Truth, sizes: Sequence[Size], studies: int
) -> tuple[dict[Size, Tally], float]:
    """Return what studies led to, and the sd of the points that rates lost.

    Args:
        truth (Truth): What is true of all of them.
        sizes (Sequence[Size]): The parts of each study that are compared.
        studies (int): How many are drawn.
    """
    rng = np.random.default_rng(7)
    tallies = {size: Tally() for size in sizes}
    lost = []
    for _ in range(studies):
        scores, groups, rungs = draw_study(rng, truth)
        lost.append(losses(truth)[rungs])
        for size, tally in tallies.items():
            count(tally, truth, size, scores, groups)
    return tallies, float(np.std(lost))


def count(
    tally: Tally,
    truth: Truth,
    size: Size,
    scores: Mapping[str, np.ndarray],
    groups: np.ndarray,
) -> None:
    """Add the comparisons of a study's first head with so many others to a tally."""
    names = list(scores)[: size.rows + 1]
    part = {name: scores[name][: size.seeds, : size.pictures] for name in names}
    planned = [(names[0], other) for other in names[1:]]
    comparisons = compare(part, planned, MARGIN, groups[: size.pictures])
    tally.studies += 1
    tally.wrong += any(one.verdict in ('better', 'worse') for one in comparisons)
    for comparison in comparisons:
        tally.verdicts[comparison.verdict] += 1
        low, high = comparison.interval(0.95)
        if not np.isnan(low):
            tally.intervals += 1
            tally.covered += low <= truth.gain <= high


# -------------------------------------------------------------------------------
# tables
def no_difference(studies: int) -> tuple[list[str], bool]:
    """Return the table of studies without a difference, and whether it holds."""
    sizes = []
    for rows in (7, 12):
        for seeds in (3, 5, 8):
            for pictures in (70, 300, PICTURES):
                sizes.append(Size(rows, seeds, pictures))
    lines = [
        f'| sd of a tuning | pictures in a group | {" | ".join(NULL_COLUMNS)} |',
        '|---|---|' + '---|' * len(NULL_COLUMNS),
    ]
    holds = True
    for tuning, group_size, uneven, shared in NULL_ROWS:
        label = f'| {tuning:g}{", one for all seeds" if shared else ""} '
        label += f'| {group_size}{" on average, uneven" if uneven else ""} |'
        for name in REGIMES:
            truth = Truth(name, tuning, group_size, uneven, shared=shared)
            tallies, lost = measure(truth, sizes, studies)
