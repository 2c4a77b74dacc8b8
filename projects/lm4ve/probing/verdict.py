"""The rule that turns trainings into one sentence; it is printed before the first training.

Two things vary: the seed of a training, and which pictures happen to be the test. A
gain counts only if it stands out from both at once: of two tests, one for each, the
larger p is below 0.05 in up to 11 % of studies without a difference. That a difference
was not found is not a result; that it is smaller than a margin is one (equivalence by
two one-sided tests: Schuirmann, J. Pharmacokinet. Biopharm. 1987).
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
#: Verdicts in the order of sentences.
_ORDER = (
    'better',
    'worse',
    'equal',
    'few seeds',
    'few test pictures',
    'few seeds and test pictures',
)


@dataclass(frozen=True)
class Comparison:
    """A frozen block against another variant, in points (per cent of the test pictures).

    Attributes:
        block, against (str): Variants' names.
        difference (float): Mean accuracy of the block minus that of the other.
        seeds (tuple[float, float]): Its 95 % interval over seeds, on these test
            pictures.
        both (tuple[float, float]): Over seeds and test pictures, and not within the one
            before.
        p, holm (float): The larger p of these two, two-sided; the second corrected.
        verdict (str): 'better', 'worse', 'equal', 'few seeds', 'few test pictures' or
            'few seeds and test pictures'.
        words (str): The same for tables, with the margin or the number that is needed.
    """

    block: str
    against: str
    difference: float
    seeds: tuple[float, float]
    both: tuple[float, float]
    p: float
    holm: float = math.nan
    verdict: str = ''
    words: str = ''


def points(value: float) -> str:
    """Return a number of points in words."""
    text = f'{value:.1f}'.removesuffix('.0')
    return f'{text} point{"s" * (text != "1")}'


def interval(values: np.ndarray) -> tuple[float, float]:
    """Return the 95 % interval of a mean by Student's t; equal values have one of no width."""
    from statsmodels.stats.weightstats import DescrStatsW  # it takes seconds to import

    return DescrStatsW(values).tconfint_mean()


def compare(
    correct: Mapping[str, np.ndarray], blocks: Sequence[str], margin: float
) -> list[Comparison]:
    """Compare every block with every variant that is none of the blocks.

    Args:
        correct (Mapping[str, np.ndarray]): Variant -> bool ``[seeds, test pictures]``,
            which pictures were right; the same seeds and pictures in the same order.
        blocks (Sequence[str]): Names of the frozen blocks.
        margin (float): In points.

    Returns:
        list[Comparison]: For each block in turn; Holm's correction is for all of them.
    """
    found = []
    for block, against in itertools.product(
        blocks, [n for n in correct if n not in blocks]
    ):
        gain = 100.0 * (correct[block].astype(float) - correct[against].astype(float))
        (seeds, p), (both, q) = (_test(gain, kinds) for kinds in (1, 2))
        ends = seeds, (min(seeds[0], both[0]), max(seeds[1], both[1]))
        found.append(
            (Comparison(block, against, float(gain.mean()), *ends, max(p, q)), gain)
        )
    corrected = zip(found, holm([c.p for c, _ in found]), strict=True)
    return [
        decide(replace(c, holm=p), gain, margin, len(found))
        for (c, gain), p in corrected
    ]


def decide(
    c: Comparison, gain: np.ndarray, margin: float, comparisons: int
) -> Comparison:
    """The verdict on a frozen block and another variant, whose seeds are paired:

    - no difference larger than the margin, on these test pictures: the 90 % interval
      over seeds, each of them rounded to whole pictures, lies within the margin, so
      that two one-sided t-tests reject that it is larger;
    - better, or worse: else, if p < 0.05, where p is the larger one of a paired t-test
      over seeds and of min F' over seeds and test pictures (Clark, J. Verbal Learn.
      Verbal Behav. 1973), both two-sided, corrected by Holm for all comparisons;
    - too few seeds, or test pictures, to tell: else. The number that is given is enough
      with a chance of 80 % for one of the two above, if mean and spread are as
      observed.

    Of several layers, the sentence is about the one with the best accuracy in tuning.
    """
    half = math.sqrt(_rounded_error(gain)) * stats.t.ppf(1 - ALPHA, len(gain) - 1)
    verdict = words = 'better' if c.difference > 0 else 'worse'
    if abs(c.difference) + half < margin:
        verdict, words = 'equal', f'no difference larger than {points(margin)}'
    elif not c.holm < ALPHA:
        needed = _needed(gain, ALPHA / comparisons, margin)
        verdict = f'few {" and ".join(needed)}'
        numbers = ' and '.join(f'{n:,}' for n in needed.values())
        words = f'too {verdict} to tell: {numbers} needed'
    return replace(c, verdict=verdict, words=words)


def _errors(gain: np.ndarray) -> np.ndarray:
    """Return the squared standard errors of a mean, over seeds and over test pictures."""
    return np.array([x.var(ddof=1) / len(x) for x in (gain.mean(1), gain.mean(0))])


def _rounded_error(gain: np.ndarray) -> float:
    """Return the squared standard error over seeds, if rounding to whole pictures is one more."""
    return float(_errors(gain)[0] + (100 / gain.shape[1]) ** 2 / 12 / len(gain))


def _test(gain: np.ndarray, kinds: int) -> tuple[tuple[float, float], float]:
    """Return a mean's 95 % interval and p; kinds: over seeds (1), and test pictures (2)."""
    mean, errors = float(gain.mean()), _errors(gain)[:kinds]
    if not errors.any():  # Student's t is infinite, or nothing differs
        return (mean, mean), float(mean == 0)
    freedom = errors.sum() ** 2 / (errors**2 / (np.array(gain.shape[:kinds]) - 1)).sum()
    t = stats.t(freedom, mean, math.sqrt(errors.sum()))
    low, high = t.interval(0.95)
    return (float(low), float(high)), 2 * float(min(t.cdf(0), t.sf(0)))


def _needed(gain: np.ndarray, alpha: float, margin: float) -> dict[str, int]:
    """Return of what how many would decide, if mean and spread are as they were observed.

    More seeds can show that the mean is not zero, or that it is within the margin; more
    pictures only the first. Where neither is enough alone, both have to grow.
    """
    effect, errors = abs(float(gain.mean())), _errors(gain)
    sure, power, within, half = stats.norm.ppf(
        [1 - alpha / 2, POWER, 1 - ALPHA, (1 + POWER) / 2]
    )
    most = (effect / (sure + power)) ** 2  # that the errors may sum to
    rooms = most - errors[::-1]
    growth = [
        e / room if room > 0 else math.inf
        for e, room in zip(errors, rooms, strict=True)
    ]
    if margin > effect:  # both one-sided tests have to reject
        equal = _rounded_error(gain) * ((within + half) / (margin - effect)) ** 2
        growth[0] = min(growth[0], equal)
    least = min(growth)
    factor = least if least < math.inf else errors.sum() / most
    counts = zip(('seeds', 'test pictures'), gain.shape, growth, strict=True)
    return {  # with a term for Student's t (Guenther 1981)
        name: max(math.ceil(count * factor + sure**2 / 2), count + 1)
        for name, count, own in counts
        if own == least
    }


def conclude(
    comparisons: Sequence[Comparison], variants: Mapping[str, Variant], margin: float
) -> str:
    """Return the sentence for a reader.

    Args:
        comparisons (Sequence[Comparison]): Those of one block.
        variants (Mapping[str, Variant]): By name.
        margin (float): In points.
    """
    parts = []
    for verdict in _ORDER:
        if others := [
            _words(c, variants[c.against]) for c in comparisons if c.verdict == verdict
        ]:
            joined = ' and '.join(filter(None, (', '.join(others[:-1]), others[-1])))
            parts.append(f'{_relation(verdict, margin)} {joined}')
    block = variants[comparisons[0].block].words
    meaning = _meaning([(variants[c.against].family, c.verdict) for c in comparisons])
    return f'On this data {block} {"; it ".join(parts)}. {meaning}'


def _words(c: Comparison, other: Variant) -> str:
    if c.verdict not in ('better', 'worse'):
        return other.words
    low, high = sorted(map(abs, c.both))
    return (
        f'{other.words} by {points(abs(c.difference))} (95 %: {low:.1f} to {high:.1f})'
    )


def _relation(verdict: str, margin: float) -> str:
    if verdict == 'equal':
        return (
            f'does not differ by more than {points(margin)} on these test pictures from'
        )
    few = verdict.removeprefix('few ')
    return (
        f'is {verdict} than' if few == verdict else f'needs more {few} to be told from'
    )


def _meaning(found: Sequence[tuple[str, str]]) -> str:
    """Return what follows from families and verdicts; several ones of a family have to agree."""
    is_better = {family for family, _ in found} - {
        f for f, verdict in found if verdict != 'better'
    }
    is_not = {family for family, verdict in found if verdict in ('equal', 'worse')}
    if 'linear' not in is_better:
        return (
            'So it does not help here.'
            if 'linear' in is_not
            else 'Whether it helps is open.'
        )
    if 'random' in is_not:
        text = 'it helps, but not by its pre-training'
    elif 'random' not in is_better:
        text = 'it helps; whether by its pre-training is open'
    elif 'formal' in is_not:
        text = 'its pre-training helps, but it is not the language'
    elif 'formal' in is_better:
        text = 'its pre-training helps, more than that on a formal language'
    else:
        text = 'its pre-training helps; whether it is the language is open'
    trained = is_not & {'attentive', 'attention', 'mlp'}
    return f'So {text}{", and a trained control does at least as well" if trained else ""}.'
