"""The rule that turns trainings into one sentence; it is printed before the first training.

Two things vary: the seed of a training, and which pictures happen to be the test. A gain counts
only if it stands out from both. That a difference was not found is not a result; that it is
smaller than a margin is one (equivalence by two one-sided tests: Schuirmann, J. Pharmacokinet.
Biopharm. 1987).
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from lm4ve.ablation.statistics import holm
from lm4ve.probing.variants import Variant

ALPHA = 0.05
POWER = 0.8


@dataclass(frozen=True)
class Comparison:
    """A frozen block against another variant, in points (per cent of the test pictures).

    Attributes:
        block, against (str): Variants' names.
        difference (float): Mean accuracy of the block minus that of the other.
        seeds (tuple[float, float]): Its 95 % interval over seeds.
        pictures (tuple[float, float]): Its 95 % interval over test pictures.
        p, holm (float): The larger p of two paired t-tests, over seeds and over test pictures,
            both two-sided; the second corrected.
        verdict (str): 'better', 'worse', 'equal', 'few seeds' or
            'few test pictures'.
        words (str): The same for tables, with the margin or the number that is needed.
    """

    block: str
    against: str
    difference: float
    seeds: tuple[float, float]
    pictures: tuple[float, float]
    p: float
    holm: float = math.nan
    verdict: str = ''
    words: str = ''


def points(value: float) -> str:
    """Return a number of points in words."""
    text = f'{value:.1f}'.removesuffix('.0')
    return f'{text} point{"s" * (text != "1")}'


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
    for block, against in itertools.product(blocks, [n for n in correct if n not in blocks]):
        gain = 100.0 * (correct[block].astype(float) - correct[against].astype(float))
        ends = interval(gain.mean(1), 0.95), interval(gain.mean(0), 0.95)
        p = max(_p(gain.mean(1)), _p(gain.mean(0)))
        found.append(Comparison(block, against, float(gain.mean()), *ends, p))
        gains.append(gain)
    corrected = holm([c.p for c in found])
    return [
        decide(replace(c, holm=p), gain, margin, len(found))
        for c, p, gain in zip(found, corrected, gains, strict=True)
    ]


def decide(c: Comparison, gain: np.ndarray, margin: float, comparisons: int) -> Comparison:
    """The verdict on a frozen block and another variant, whose seeds are paired:

    - no difference larger than the margin: the 90 % interval over seeds lies within the
      margin, so that two one-sided t-tests reject that it is larger;
    - better, or worse: else, if p < 0.05, where p is the larger one of two paired t-tests,
      over seeds and over test pictures, corrected by Holm for all comparisons;
    - too few test pictures to tell: else, if p over seeds is small enough even for Bonferroni's
      correction; too few seeds to tell: else. The number that is given is enough with a chance
      of 80 %, if mean and spread are as observed.

    Of several layers, the sentence is about the one with the best accuracy in tuning.
    """
    seeds, pictures = gain.mean(1), gain.mean(0)
    low, high = interval(seeds, 0.9)
    verdict = words = 'better' if c.difference > 0 else 'worse'
    if -margin < low and high < margin:
        verdict, words = 'equal', f'no difference larger than {points(margin)}'
    elif not c.holm < ALPHA:
        few = {'seeds': seeds, 'test pictures': pictures}
        noun = 'test pictures' if _p(seeds) * comparisons < ALPHA else 'seeds'
        # More pictures can only show that there is a difference.
        n = _needed(few[noun], ALPHA / comparisons, margin if noun == 'seeds' else 0.0)
        n = max(n, len(few[noun]) + 1)
        verdict, words = f'few {noun}', f'too few {noun} to tell: {n:,} needed'
    return replace(c, verdict=verdict, words=words)


def _p(differences: np.ndarray) -> float:
    if np.ptp(differences) == 0:  # Student's t is infinite, or nothing differs
        return float(differences[0] == 0)
    return float(stats.ttest_1samp(differences, 0).pvalue)


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
    comparisons: Sequence[Comparison], variants: Mapping[str, Variant], margin: float
) -> str:
    """Return the sentence for a reader.

    Args:
        comparisons (Sequence[Comparison]): Those of one block.
        variants (Mapping[str, Variant]): By name.
        margin (float): In points.
    """
    groups: dict[str, list[str]] = {}
    verdicts: dict[str, set[str]] = {}
    for c in comparisons:
        other = variants[c.against]
        verdicts.setdefault(other.family, set()).add(c.verdict)
        wider = max(c.seeds, c.pictures, key=lambda ends: ends[1] - ends[0])
        low, high = sorted(map(abs, wider))
        size = f' by {points(abs(c.difference))} ({low:.1f} to {high:.1f})'
        is_clear = c.verdict in ('better', 'worse')
        groups.setdefault(c.verdict, []).append(f'{other.words}{size if is_clear else ""}')
    before = {
        'better': 'is better than {}',
        'worse': 'is worse than {}',
        'equal': f'does not differ by more than {points(margin)} from {{}}',
        'few seeds': 'needs more seeds to be told from {}',
        'few test pictures': 'needs more test pictures to be told from {}',
    }
    parts = [text.format(_join(groups[v])) for v, text in before.items() if v in groups]
    block = variants[comparisons[0].block].words
    return f'On this data {block} {"; it ".join(parts)}. {_meaning(verdicts)}'.strip()


def _join(words: Sequence[str]) -> str:
    *first, last = words
    return f'{", ".join(first)} and {last}' if first else last


def _meaning(verdicts: Mapping[str, set[str]]) -> str:
    """Return what follows from the verdicts by family."""
    is_better = {family: found == {'better'} for family, found in verdicts.items()}
    is_not = {family: bool(found & {'equal', 'worse'}) for family, found in verdicts.items()}
    if not is_better.get('linear'):
        return 'So it does not help here.' if is_not.get('linear') else 'Whether it helps is open.'
    if is_not.get('random'):
        text = 'it helps, but not by its pre-training'
    elif not is_better.get('random'):
        text = 'it helps; whether by its pre-training is open'
    elif is_not.get('formal'):
        text = 'its pre-training helps, but it is not the language'
    elif is_better.get('formal'):
        text = 'its pre-training helps, more than that on a formal language'
    else:
        text = 'its pre-training helps; whether it is the language is open'
    trained = any(is_not.get(family) for family in ('attentive', 'attention', 'mlp'))
    return f'So {text}{", and a trained control does as well" if trained else ""}.'
