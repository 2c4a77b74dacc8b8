"""The rule that turns trainings into one sentence; it is printed before the first training.

Two things vary: the seed of a training, and which pictures happen to be the test. A gain counts
only if it stands out from both. That a difference was not found is not a result; that it is
smaller than a margin is one (equivalence by two one-sided tests: Schuirmann, J. Pharmacokinet.
Biopharm. 1987).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from lm4ve.ablation.report import number, span
from lm4ve.ablation.statistics import holm, paired_tests

ALPHA = 0.05
POWER = 0.8
#: What a verdict is called in tables; '{}' is the margin or a number that would be needed.
WORDS = {
    'better': 'better',
    'worse': 'worse',
    'equal': 'no difference larger than {}',
    'few seeds': 'too few seeds to tell: about {} would be needed',
    'few pictures': 'too few test pictures to tell: about {} would be needed',
}


@dataclass(frozen=True)
class Comparison:
    """A frozen block against another variant, in points (per cent of the test pictures).

    Attributes:
        block, against (str): Variants' names.
        difference (float): Mean accuracy of the block minus that of the other.
        seeds (tuple[float, float]): Its 95 % interval over seeds.
        pictures (tuple[float, float]): Its 95 % interval over test pictures.
        p, holm (float): Of the paired t-test over seeds, two-sided; the second corrected.
        verdict (str): A key of :data:`WORDS`.
        needed (int): Seeds or pictures that would be needed, for the last two.
        margin (float): For 'equal'.
    """

    block: str
    against: str
    difference: float
    seeds: tuple[float, float]
    pictures: tuple[float, float]
    p: float
    holm: float = math.nan
    verdict: str = ''
    needed: int = 0
    margin: float = 1.0

    @property
    def words(self) -> str:
        shown = points(self.margin) if self.verdict == 'equal' else f'{self.needed:,}'
        return WORDS[self.verdict].format(shown)

    @property
    def span(self) -> tuple[float, float]:
        """The wider one of both intervals."""
        return max(self.seeds, self.pictures, key=lambda ends: ends[1] - ends[0])


def describe_rule(margin: float, seeds: int, pictures: int, comparisons: int) -> str:
    """Return the rule in words, to be printed before the first training."""
    m = points(margin)
    return (
        f'The rule, set before the first training. Every frozen block is compared with every other '
        f'variant:\n{seeds} seeds, paired; {pictures:,} test pictures; {comparisons} comparisons.\n'
        f'  no difference larger than {m}: the 90 % interval over seeds lies within it (two '
        f'one-sided t-tests)\n'
        f'  better, worse: else, if p < {ALPHA} over seeds (paired t-test, corrected by Holm) and '
        f'the 95 % interval\n'
        f'    over test pictures excludes zero\n'
        f'  too few seeds, too few test pictures: else; with the number for a power of {POWER:.0%}'
        f'\nOf several layers, the sentence is about the one with the best validation accuracy.'
    )


def points(value: float) -> str:
    """Return a number of points in words."""
    return f'{number(value)} point{"s" * (value != 1)}'


def interval(values: np.ndarray, confidence: float) -> tuple[float, float]:
    """Return the interval of a mean by Student's t; equal values have one of no width."""
    if len(values) < 2:
        return math.nan, math.nan
    mean, error = float(values.mean()), float(stats.sem(values))
    if not error > 0:
        return mean, mean
    low, high = stats.t.interval(confidence, len(values) - 1, mean, error)
    return float(low), float(high)


def compare(
    correct: Mapping[str, np.ndarray], blocks: Sequence[str], margin: float
) -> list[Comparison]:
    """Compare every block with every variant that is none of the blocks.

    Args:
        correct (Mapping[str, np.ndarray]): Variant -> bool ``[seeds, test pictures]``, which
            pictures were right; the same seeds and pictures in the same order.
        blocks (Sequence[str]): Names of the frozen blocks.
        margin (float): In points.

    Returns:
        list[Comparison]: For each block in turn; Holm's correction is for all of them.
    """
    found, gains = [], []
    for block in blocks:
        for against in (name for name in correct if name not in blocks):
            gain = 100.0 * (correct[block].astype(float) - correct[against].astype(float))
            ends = interval(gain.mean(1), 0.95), interval(gain.mean(0), 0.95)
            p, _ = paired_tests(100.0 * correct[block].mean(1), 100.0 * correct[against].mean(1))
            mean = float(gain.mean())
            found.append(Comparison(block, against, mean, *ends, p, margin=margin))
            gains.append(gain)
    corrected = holm([c.p for c in found])
    return [
        _decide(replace(c, holm=p), gain, len(found))
        for c, p, gain in zip(found, corrected, gains, strict=True)
    ]


def _decide(c: Comparison, gain: np.ndarray, comparisons: int) -> Comparison:
    """Apply the rule to ``gain``, points ``[seeds, pictures]``."""
    seeds, pictures = gain.mean(1), gain.mean(0)
    low, high = interval(seeds, 0.9)
    if -c.margin < low and high < c.margin:
        return replace(c, verdict='equal')
    if not c.holm < ALPHA:
        needed = _needed(seeds, ALPHA / comparisons, c.margin)
        return replace(c, verdict='few seeds', needed=max(needed, len(seeds) + 1))
    if not (c.pictures[0] > 0 or c.pictures[1] < 0):
        needed = _needed(pictures, ALPHA)
        return replace(c, verdict='few pictures', needed=max(needed, len(pictures) + 1))
    return replace(c, verdict='better' if c.difference > 0 else 'worse')


def _needed(values: np.ndarray, alpha: float, margin: float = 0.0) -> int:
    """Return how many values would decide, if mean and spread are as they were observed.

    The smaller one of two numbers: to show that the mean is not zero, and that it is within
    the margin.
    """
    spread, mean = values.std(ddof=1), abs(values.mean())
    # Both one-sided tests have to reject: each of them with half the chance to fail.
    tests = (mean, 1 - alpha / 2, POWER), (margin - mean, 1 - ALPHA, (1 + POWER) / 2)
    return math.ceil(
        min(
            (stats.norm.ppf([sure, power]).sum() * spread / effect) ** 2
            + stats.norm.ppf(sure) ** 2 / 2  # for Student's t (Guenther 1981)
            for effect, sure, power in tests
            if effect > 0
        )
    )


def conclude(
    comparisons: Sequence[Comparison], block: str, variants: Mapping[str, tuple[str, str]]
) -> str:
    """Return the sentence for a reader.

    Args:
        comparisons (Sequence[Comparison]): From :func:`compare`.
        block (str): The frozen variant that it is about.
        variants (Mapping): Name -> family, and words for a sentence.
    """
    mine = [c for c in comparisons if c.block == block]
    parts = []
    for verdict in ('better', 'worse'):
        found = [
            f'than {variants[c.against][1]} by {points(abs(c.difference))} ({_span(c)})'
            for c in mine
            if c.verdict == verdict
        ]
        parts += [f'{verdict} {_join(found)}'] if found else []
    equal = [variants[c.against][1] for c in mine if c.verdict == 'equal']
    if equal:
        parts.append(f'not different from {_join(equal)} by more than {points(mine[0].margin)}')
    for verdict, noun in (('few seeds', 'seeds'), ('few pictures', 'test pictures')):
        found = [
            f'{variants[c.against][1]} (about {c.needed:,} {noun} would be needed)'
            for c in mine
            if c.verdict == verdict
        ]
        parts += [f'not to be told from {_join(found)}'] if found else []
    verdicts: dict[str, list[str]] = {}
    for c in mine:
        verdicts.setdefault(variants[c.against][0], []).append(c.verdict)
    end = _meaning(verdicts)
    return f'On this data {variants[block][1]} is {_join(parts, "; ")}{end and ": "}{end}.'


def _span(c: Comparison) -> str:
    low, high = c.span if c.difference > 0 else (-c.span[1], -c.span[0])
    return span(low, high)


def _join(words: Sequence[str], between: str = ', ') -> str:
    *first, last = words
    return (
        f'{between.join(first)}{between if between == "; " else " "}and {last}' if first else last
    )


def _meaning(verdicts: Mapping[str, Sequence[str]]) -> str:
    """Return what follows from the verdicts by family."""
    base = verdicts.get('linear', [''])[0]
    if base != 'better':
        words = {'': '', 'equal': 'it does not help here', 'worse': 'it does harm here'}
        return words.get(base, 'whether it helps here is open')
    same = {
        family: any(v in ('equal', 'worse') for v in found) for family, found in verdicts.items()
    }
    all_better = {family: set(found) == {'better'} for family, found in verdicts.items()}
    if same.get('random'):
        text = 'it helps, but its pre-training is not the reason'
    elif not all_better.get('random'):
        text = 'it helps; whether its pre-training is the reason is open'
    elif same.get('formal'):
        text = 'its pre-training helps, but language is not the reason'
    elif all_better.get('formal'):
        text = 'its pre-training helps, and more than that on a formal language'
    else:
        text = 'its pre-training helps; whether language is the reason is open'
    if any(same.get(family) for family in ('attentive', 'attention', 'mlp')):
        text += ', and trained layers do as well'
    return text
