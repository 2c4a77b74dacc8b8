"""Interface only, for now: how variants of a study are compared."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Comparison:
    """A variant against another one, in points (per cent of the test pictures).

    Attributes:
        variant, against (str): Their names.
        difference (float): Mean score of the variant minus that of the other.
        low, high (float): The one interval: it is judged and drawn. It excludes zero
            exactly where the verdict is better or worse.
        confidence (float): Of the interval; more than 0.95 where several comparisons
            are planned, and the same for all of a study.
        error, freedom (float): The standard error of the difference and its degrees of
            freedom, from which interval and p follow.
        p, corrected_p (float): Two-sided; the second by Holm for all planned ones.
        verdict (str): 'better', 'worse', 'equal' (no difference larger than the margin)
            or 'open'.
        reason (str): Why it is open: 'few seeds', 'few pictures', 'few seeds and
            pictures', 'few groups', 'at chance level' or 'no scores'; else empty.
        needed_seeds, needed_pictures (int): Numbers that would decide with a chance of
            80 %; 0 for one that need not grow, or is not known.
        seeds, pictures, groups (int): What the interval counts; `pictures` is 1 for
            scores of whole trainings, so that only seeds are counted.
    """

    variant: str
    against: str
    difference: float = math.nan
    low: float = math.nan
    high: float = math.nan
    confidence: float = math.nan
    error: float = math.nan
    freedom: float = math.nan
    p: float = math.nan
    corrected_p: float = math.nan
    verdict: str = 'open'
    reason: str = 'no scores'
    needed_seeds: int = 0
    needed_pictures: int = 0
    seeds: int = 0
    pictures: int = 0
    groups: int = 0


def compare(
    scores: Mapping[str, np.ndarray],
    planned: Sequence[tuple[str, str]],
    margin: float,
    groups: np.ndarray | None = None,
    chance: float | None = None,
    step: float | None = None,
) -> list[Comparison]:
    """Compare variants in pairs, one :class:`Comparison` for each planned pair.

    Args:
        scores (Mapping[str, np.ndarray]): Variant -> points ``[seeds, pictures]``: 100
            where a picture is right, else 0. Rows are the same seeds in all variants,
            columns the same pictures; a row of NaN is a seed without a result. A
            variant with a single row stands beside each seed of the other. Scores of
            whole trainings are ``[seeds, 1]``.
        planned (Sequence): Names of variant and other, of all pairs that were planned
            before the first score; pairs without scores count for the correction.
        margin (float): The smallest difference that matters, in points.
        groups (np.ndarray | None): The group of each picture, ``[pictures]``; without,
            each picture is a group.
        chance (float | None): Points of guessing, as of the most frequent class.
        step (float | None): The smallest difference that a seed's score can have, in
            points; by default that of one picture. Needed for ``[seeds, 1]``.
    """
    raise NotImplementedError
