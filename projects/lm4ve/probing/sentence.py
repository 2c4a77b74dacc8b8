"""The sentence that a study ends with, for a reader who has not seen the numbers."""

from collections.abc import Mapping, Sequence

from lm4ve.probing.heads import HeadSpec
from lm4ve.probing.verdict import Comparison, points

#: Verdicts in the order in which the sentence names them.
_ORDER = (
    'better',
    'worse',
    'equal',
    'few seeds',
    'few test pictures',
    'few seeds and test pictures',
)
#: Families of heads that train a layer, or an attentive probe, in the block's place.
_TRAINED = ('attentive', 'attention', 'mlp')


def conclude(
    comparisons: Sequence[Comparison], heads: Mapping[str, HeadSpec], margin: float
) -> str:
    """Return what a study shows about a block, in two sentences.

    The first names the other heads, grouped by verdict in the order of :data:`_ORDER`,
    as in 'On this data the frozen block is better than the linear probe by 2 points (95
    %: 1.0 to 3.0); it needs more seeds to be told from a frozen random block.' The
    second draws the conclusion: 'Whether it helps is open.'

    Args:
        comparisons (Sequence[Comparison]): The comparisons of one block with the other
            heads, at least one.
        heads (Mapping[str, HeadSpec]): Name -> head, of all that are compared.
        margin (float): The smallest difference that matters, in points.
    """
    clauses = []
    for verdict in _ORDER:
        others = []
        for comparison in comparisons:
            if comparison.verdict == verdict:
                others.append(_describe(comparison, heads[comparison.against]))
        if others:
            clauses.append(f'{_relation(verdict, margin)} {_join(others)}')
    block = heads[comparisons[0].block].words
    result = '; it '.join(clauses)
    families = [heads[comparison.against].family for comparison in comparisons]
    verdicts = [comparison.verdict for comparison in comparisons]
    return f'On this data {block} {result}. {_meaning(families, verdicts)}'


def _describe(comparison: Comparison, other: HeadSpec) -> str:
    """Return the other head's name in words, with the difference if one head is better."""
    if comparison.verdict not in ('better', 'worse'):
        return other.words
    low, high = sorted(abs(end) for end in comparison.both)
    difference = points(abs(comparison.difference))
    return f'{other.words} by {difference} (95 %: {low:.1f} to {high:.1f})'


def _join(names: Sequence[str]) -> str:
    """Join names as 'a, b and c'."""
    if len(names) == 1:
        return names[0]
    return f'{", ".join(names[:-1])} and {names[-1]}'


def _relation(verdict: str, margin: float) -> str:
    """Return the words between a block and the heads that have a verdict: 'is better than'."""
    if verdict in ('better', 'worse'):
        return f'is {verdict} than'
    if verdict == 'equal':
        return (
            f'does not differ by more than {points(margin)} on these test pictures from'
        )
    few = verdict.removeprefix('few ')
    return f'needs more {few} to be told from'


def _meaning(families: Sequence[str], verdicts: Sequence[str]) -> str:
    """Return the conclusion of the comparisons as a sentence.

    A family counts as beaten if the block is better than each of its heads, and as not
    beaten if the block is equal to or worse than one of them; else it is undecided.

    Args:
        families (Sequence[str]): The family of each head that the block was compared
            with.
        verdicts (Sequence[str]): The verdict of each comparison.
    """
    beaten = set(families)
    not_beaten = set()
    for family, verdict in zip(families, verdicts, strict=True):
        if verdict != 'better':
            beaten.discard(family)
        if verdict in ('equal', 'worse'):
            not_beaten.add(family)

    if 'linear' in not_beaten:
        return 'So it does not help here.'
    if 'linear' not in beaten:
        return 'Whether it helps is open.'
    meaning = _cause(beaten, not_beaten)
    if not_beaten.intersection(_TRAINED):
        return f'So {meaning}, and a trained control does at least as well.'
    return f'So {meaning}.'


def _cause(beaten: set[str], not_beaten: set[str]) -> str:
    """Return why a block helps, as far as the comparisons show it.

    Args:
        beaten (set[str]): Families of which the block is better than each head.
        not_beaten (set[str]): Families with a head that is equal to it, or better.
    """
    if 'random' in not_beaten:
        return 'it helps, but not by its pre-training'
    if 'random' not in beaten:
        return 'it helps; whether by its pre-training is open'
    if 'formal' in not_beaten:
        return 'its pre-training helps, but it is not the language'
    if 'formal' in beaten:
        return 'its pre-training helps, more than that on a formal language'
    return 'its pre-training helps; whether it is the language is open'
