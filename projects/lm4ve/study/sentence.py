"""What a study shows, in words: one sentence with the answer, one with every comparison.

The reader of the answer has seen neither the numbers nor the flags of the command.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from lm4ve.study.cells import Metric
from lm4ve.study.compare import MOST_GROWTH, Comparison

#: Families of heads with nothing between tokens and classifier; a block helps if it is
#: better than each of them.
PROBES = ('linear', 'logreg', 'knn')
#: Families of heads that train a layer, or an attentive probe, in the block's place.
_TRAINED = ('attentive', 'attention', 'mlp')


class Variant(Protocol):
    """What a sentence says of a variant."""

    @property
    def family(self) -> str:
        """What kind of head it is."""

    @property
    def words(self) -> str:
        """Its name in sentences."""


class Subject(NamedTuple):
    """What an answer is about.

    Attributes:
        block (str): The block, as in 'layer 5 of llama-7b'.
        encoder (str): The encoder's short name.
        data (str): The short name of the data, with the shots if they are few.
        metric (Metric): What the scores are.
        margin (float): The smallest difference that matters, in its unit.
    """

    block: str
    encoder: str
    data: str
    metric: Metric
    margin: float


def answer(
    comparisons: Sequence[Comparison],
    heads: Mapping[str, Variant],
    subject: Subject,
) -> str:
    """Return whether a block helps, in one sentence that begins with Yes, No or Open.

    As in 'Open: 73 test pictures cannot show whether the last layer of llama-7b helps
    efficientnet-lite0 on photos (+1 point against the linear probe); about 4,100
    would.' Of several probes without a block, the strongest one decides.

    Args:
        comparisons (Sequence[Comparison]): The comparisons of one block with the other
            heads, those with the strongest probe first.
        heads (Mapping[str, Variant]): Name -> head, of all that are compared.
        subject (Subject): What the sentence names.
    """
    metric = subject.metric
    block = subject.block
    encoder = subject.encoder
    data = subject.data
    with_probes = []
    for comparison in comparisons:
        if heads[comparison.against].family in PROBES:
            with_probes.append(comparison)
    if not with_probes:
        return (
            f'Open: nothing shows whether {block} helps {encoder} on {data} without a '
            'linear probe to compare it with.'
        )
    for comparison in with_probes:
        if comparison.verdict in ('equal', 'worse'):
            relation = _relation(comparison, metric.margin(subject.margin))
            other = _describe(comparison, heads[comparison.against], metric)
            return (
                f'No: {block} does not help {encoder} on {data}; it {relation} {other}.'
            )
    for comparison in with_probes:
        if comparison.verdict == 'open':
            return _say_open(comparison, heads[comparison.against], subject)
    with_strongest = with_probes[0]
    other = _describe(with_strongest, heads[with_strongest.against], metric)
    cause = _cause(comparisons, heads)
    return f'Yes: {block} helps {encoder} on {data}; it is better than {other}{cause}.'


def conclude(
    comparisons: Sequence[Comparison],
    variants: Mapping[str, Variant],
    metric: Metric,
    margin: float,
    place: str = 'On this data',
) -> str:
    """Return how a variant compares with each other one, in a sentence.

    It names the others grouped by verdict, as in 'On this data the frozen block is better
    than the linear probe by 2 points (1.0 to 3.0); it needs more seeds to be told from a
    frozen random block.'

    Args:
        comparisons (Sequence[Comparison]): The comparisons of one variant with the
            others, at least one, in the order of the table.
        variants (Mapping[str, Variant]): By name, all that are compared.
        metric (Metric): What the scores are.
        margin (float): The smallest difference that matters, in its unit.
        place (str): How the sentence begins.
    """
    others: dict[str, list[str]] = {}
    for comparison in comparisons:
        relation = _relation(comparison, metric.margin(margin))
        other = _describe(comparison, variants[comparison.against], metric)
        others.setdefault(relation, []).append(other)
    clauses = [f'{relation} {join(names)}' for relation, names in others.items()]
    result = '; it '.join(clauses)
    return f'{place} {variants[comparisons[0].variant].words} {result}.'


def judge_all(
    comparisons: Sequence[Comparison],
    variants: Mapping[str, Variant],
    metric: Metric,
    margin: float,
    place: str,
) -> str:
    """Return whether any variant is better than one reference, in a sentence.

    It begins with Yes if one is, with No if each is within the margin or worse, else with
    Open. As in "Yes, Digits: 'branch' is better than 'none' by 2 points (1.0 to 3.0);
    'random' needs more seeds to be told from 'none'."

    Args:
        comparisons (Sequence[Comparison]): The comparisons of the variants with the
            reference, at least one, in the order of the table.
        variants, metric, margin: As in :func:`conclude`.
        place (str): What was studied.
    """
    verdicts = {comparison.verdict for comparison in comparisons}
    word = 'No'
    if 'better' in verdicts:
        word = 'Yes'
    elif 'open' in verdicts:
        word = 'Open'
    clauses = []
    for comparison in comparisons:
        relation = _relation(comparison, metric.margin(margin))
        other = _describe(comparison, variants[comparison.against], metric)
        clauses.append(f'{variants[comparison.variant].words} {relation} {other}')
    return f'{word}, {place}: {"; ".join(clauses)}.'


def join(names: Sequence[str]) -> str:
    """Join names as 'a, b and c'."""
    if len(names) == 1:
        return names[0]
    return f'{", ".join(names[:-1])} and {names[-1]}'


def _say_open(comparison: Comparison, other: Variant, subject: Subject) -> str:
    """Return the sentence for a comparison without a verdict: why, and what would do.

    Args:
        comparison (Comparison): The comparison with the decisive probe.
        other (Variant): That probe.
        subject (Subject): What the sentence names.
    """
    question = f'whether {subject.block} helps {subject.encoder} on {subject.data}'
    sign = '+' if comparison.difference >= 0 else '-'
    amount = subject.metric.amount(abs(comparison.difference))
    difference = f'{sign}{amount} against {other.words}'
    if comparison.reason == 'no scores':
        difference = f'{other.words} has not run'
    present = []
    needed = []
    if comparison.needed_seeds:
        present.append(f'{comparison.seeds} seeds')
        needed.append(f'{_round_up(comparison.needed_seeds)} seeds')
    if comparison.needed_pictures:
        present.append(f'{comparison.pictures:,} test pictures')
        needed.append(f'{_round_up(comparison.needed_pictures)} test pictures')
    if comparison.reason == 'small difference':
        present = [f'{comparison.seeds} seeds']
        if comparison.pictures > 1:  # else scores of whole trainings
            present.append(f'{comparison.pictures:,} test pictures')
        return (
            f'Open: {join(present)} cannot show {question} ({difference}), nor would '
            f'{MOST_GROWTH} times as many.'
        )
    if not needed:
        reason = {
            'few groups': f'{comparison.groups} groups of test pictures are too few to show',
            'few pictures': f'{comparison.pictures} test pictures are too few to show',
            'few seeds': f'{comparison.seeds} seeds are too few to show',
            'at chance level': 'at chance level nothing shows',
            'no scores': 'without scores nothing shows',
        }[comparison.reason]
        return f'Open: {reason} {question} ({difference}).'
    if len(needed) == 1:
        needed = [needed[0].split()[0]]  # the noun stands before it already
    return (
        f'Open: {join(present)} cannot show {question} ({difference}); about '
        f'{join(needed)} would.'
    )


def _round_up(number: int) -> str:
    """Return the next number with two significant digits: '4,100' of 4,014."""
    unit = 10 ** max(len(str(number)) - 2, 0)
    return f'{math.ceil(number / unit) * unit:,}'


def _describe(comparison: Comparison, other: Variant, metric: Metric) -> str:
    """Return the other head's name in words, with the difference if one head is better."""
    if comparison.verdict not in ('better', 'worse'):
        return other.words
    low, high = sorted(abs(end) for end in (comparison.low, comparison.high))
    difference = metric.amount(abs(comparison.difference))
    return f'{other.words} by {difference} ({metric.interval(low, high, sign="")})'


def _relation(comparison: Comparison, margin: str) -> str:
    """Return the words between two variants by their verdict: 'is better than'."""
    if comparison.verdict in ('better', 'worse'):
        return f'is {comparison.verdict} than'
    if comparison.verdict == 'equal':
        return f'does not differ by more than {margin} from'
    more = {
        'few seeds': 'seeds',
        'few pictures': 'test pictures',
        'few seeds and pictures': 'seeds and test pictures',
        'few groups': 'groups of test pictures',
    }
    if comparison.reason in more:
        return f'needs more {more[comparison.reason]} to be told from'
    if comparison.reason == 'no scores':
        return 'was to be compared with'
    return 'cannot be told from'


def _cause(comparisons: Sequence[Comparison], heads: Mapping[str, Variant]) -> str:
    """Return why a block helps, as far as the comparisons show it, as a clause.

    A family counts as beaten if the block is better than each of its heads, and as not
    beaten if the block is equal to or worse than one of them; else it is undecided.

    Args:
        comparisons (Sequence[Comparison]): The comparisons of the block.
        heads (Mapping[str, Variant]): Name -> head.
    """
    beaten = {heads[comparison.against].family for comparison in comparisons}
    not_beaten = set()
    for comparison in comparisons:
        family = heads[comparison.against].family
        if comparison.verdict != 'better':
            beaten.discard(family)
        if comparison.verdict in ('equal', 'worse'):
            not_beaten.add(family)

    clause = _pretraining_clause(beaten, not_beaten)
    if not_beaten.intersection(_TRAINED):
        clause += '; a trained control does at least as well'
    return clause


def _pretraining_clause(beaten: set[str], not_beaten: set[str]) -> str:
    """Return whether the gain comes from pre-training, and from language.

    Args:
        beaten (set[str]): Families of which the block is better than each head.
        not_beaten (set[str]): Families with a head that is equal to it, or better.
    """
    if 'random' in not_beaten:
        return ', but not by its pre-training'
    if 'random' not in beaten:
        return '; whether by its pre-training is open'
    if 'formal' in not_beaten:
        return '; its pre-training helps, but it is not the language'
    if 'formal' in beaten:
        return '; its pre-training helps, more than that on a formal language'
    return '; its pre-training helps; whether it is the language is open'
