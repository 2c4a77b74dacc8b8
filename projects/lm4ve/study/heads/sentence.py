"""What a study shows, in words: one sentence with the answer, one with every comparison.

The reader of the answer has seen neither the numbers nor the flags of the command.
"""

import math
import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lm4ve.study.cells import points, points_of_margin
from lm4ve.study.compare import Comparison
from lm4ve.study.heads.candidates import words_of_layers
from lm4ve.study.heads.head import HeadSpec

#: Families of heads with nothing between tokens and classifier; a block helps if it is
#: better than each of them.
_PROBES = ('linear', 'logreg', 'knn')
#: Families of heads that train a layer, or an attentive probe, in the block's place.
_TRAINED = ('attentive', 'attention', 'mlp')


class Subject(NamedTuple):
    """What an answer is about.

    Attributes:
        block (str): The block, as in 'layer 5 of llama-7b'.
        encoder (str): The encoder's short name.
        data (str): The short name of the data, with the shots if they are few.
        accuracies (Mapping[str, float]): Head -> its mean accuracy, in per cent.
        shots (int): Pictures of each class that train; 0: all.
    """

    block: str
    encoder: str
    data: str
    accuracies: Mapping[str, float]
    shots: int = 0


def answer(
    comparisons: Sequence[Comparison],
    heads: Mapping[str, HeadSpec],
    subject: Subject,
    margin: float,
) -> str:
    """Return whether a block helps, in one sentence that begins with Yes, No or Open.

    As in 'Open: 73 test pictures cannot show whether the last layer of llama-7b helps
    efficientnet-lite0 on photos (+1 point against the linear probe); about 4,100
    would.' Of several probes without a block, the one that is hardest to beat decides.

    Args:
        comparisons (Sequence[Comparison]): The comparisons of one block with the other
            heads.
        heads (Mapping[str, HeadSpec]): Name -> head, of all that are compared.
        subject (Subject): What the sentence names.
        margin (float): The smallest difference that matters, in points.
    """
    block = subject.block
    encoder = subject.encoder
    data = subject.data
    with_probes = []
    for comparison in comparisons:
        if heads[comparison.against].family in _PROBES:
            with_probes.append(comparison)
    if not with_probes:
        return (
            f'Open: nothing shows whether {block} helps {encoder} on {data} without a '
            'linear probe to compare it with.'
        )
    # From the smallest gain on.
    with_probes.sort(key=lambda comparison: comparison.difference)
    for comparison in with_probes:
        if comparison.verdict in ('equal', 'worse'):
            relation = _relation(comparison, margin)
            other = _describe(comparison, heads[comparison.against])
            return (
                f'No: {block} does not help {encoder} on {data}; it {relation} {other}.'
            )
    for comparison in with_probes:
        if comparison.verdict == 'open':
            return _say_open(comparison, heads[comparison.against], subject)
    smallest_gain = with_probes[0]
    other = _describe(smallest_gain, heads[smallest_gain.against])
    cause = _cause(comparisons, heads)
    return f'Yes: {block} helps {encoder} on {data}; it is better than {other}{cause}.'


def conclude(
    comparisons: Sequence[Comparison],
    heads: Mapping[str, HeadSpec],
    subject: Subject,
    margin: float,
) -> str:
    """Return how a block compares with each other head, in a sentence.

    It names the other heads grouped by verdict, the most accurate head first, as in 'On
    this data the frozen block is better than the linear probe by 2 points (1.0 to 3.0);
    it needs more seeds to be told from a frozen random block.'

    Args:
        comparisons (Sequence[Comparison]): The comparisons of one block with the other
            heads, at least one.
        heads (Mapping[str, HeadSpec]): Name -> head, of all that are compared.
        subject (Subject): Accuracies and shots.
        margin (float): The smallest difference that matters, in points.
    """
    strongest_first = sorted(
        comparisons, key=lambda comparison: -subject.accuracies[comparison.against]
    )
    others: dict[str, list[str]] = {}
    for comparison in strongest_first:
        relation = _relation(comparison, margin)
        other = _describe(comparison, heads[comparison.against])
        others.setdefault(relation, []).append(other)
    clauses = [f'{relation} {_join(names)}' for relation, names in others.items()]
    block = heads[comparisons[0].variant]
    place = 'On this data'
    if subject.shots:
        place = f'With {words_of_shots(subject.shots)}'
    result = '; it '.join(clauses)
    return f'{place} {block.words} {result}.'


def words_of_shots(shots: int) -> str:
    """Return a number of shots in words: '5 pictures of each class'."""
    noun = 'picture' if shots == 1 else 'pictures'
    return f'{shots} {noun} of each class'


def name_block(head: HeadSpec) -> str:
    """Return the name of a frozen block: 'layer 5 of llama-7b', 'the last layer of gpt2'.

    Args:
        head (HeadSpec): A head with a block of a language model.
    """
    model = short_name(str(head.block['checkpoint']))
    layers = head.block['layers']
    if tuple(layers) == (-1,):
        words = f'the last layer of {model}'
    elif len(layers) == 1:
        words = f'layer {layers[0]} of {model}'
    else:
        words = f'layers {words_of_layers(layers)} of {model}'
    kept = head.block.get('heads')
    if kept is None:
        return words
    noun = 'head' if len(kept) == 1 else 'heads'
    return f'{words} with {noun} {_join([str(one) for one in kept])}'


def short_name(source: str) -> str:
    """Return the part of a path or an id that a reader knows it by.

    It is the last part, of a table with its folder: 'package:gpt2' and '/models/gpt2' are
    'gpt2', 'data/digits/pictures.csv' is 'digits/pictures.csv'. A config has no ending.
    """
    path = os.path.abspath(source.rpartition(':')[2])
    folder, name = os.path.split(path)
    if name.endswith('.csv'):
        return f'{os.path.basename(folder)}/{name}'
    return name.removesuffix('.py')


def name_data(source: str, encoder: str) -> str:
    """Return the short name of data; 'its own data' where encoder and data are one config.

    Args:
        source (str): What the user named.
        encoder (str): The encoder that it named.
    """
    name = short_name(source)
    if name == short_name(encoder):
        return 'its own data'
    return name


def _say_open(comparison: Comparison, other: HeadSpec, subject: Subject) -> str:
    """Return the sentence for a comparison without a verdict: why, and what would do.

    Args:
        comparison (Comparison): The comparison with the decisive probe.
        other (HeadSpec): That probe.
        subject (Subject): What the sentence names.
    """
    question = f'whether {subject.block} helps {subject.encoder} on {subject.data}'
    sign = '+' if comparison.difference >= 0 else '-'
    difference = f'{sign}{points(abs(comparison.difference))} against {other.words}'
    present = []
    needed = []
    if comparison.needed_seeds:
        present.append(f'{comparison.seeds} seeds')
        needed.append(f'{_round_up(comparison.needed_seeds)} seeds')
    if comparison.needed_pictures:
        present.append(f'{comparison.pictures:,} test pictures')
        needed.append(f'{_round_up(comparison.needed_pictures)} test pictures')
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
        f'Open: {_join(present)} cannot show {question} ({difference}); about '
        f'{_join(needed)} would.'
    )


def _round_up(number: int) -> str:
    """Return the next number with two significant digits: '4,100' of 4,014."""
    unit = 10 ** max(len(str(number)) - 2, 0)
    return f'{math.ceil(number / unit) * unit:,}'


def _describe(comparison: Comparison, other: HeadSpec) -> str:
    """Return the other head's name in words, with the difference if one head is better."""
    if comparison.verdict not in ('better', 'worse'):
        return other.words
    low, high = sorted(abs(end) for end in (comparison.low, comparison.high))
    difference = points(abs(comparison.difference))
    return f'{other.words} by {difference} ({low:.1f} to {high:.1f})'


def _join(names: Sequence[str]) -> str:
    """Join names as 'a, b and c'."""
    if len(names) == 1:
        return names[0]
    return f'{", ".join(names[:-1])} and {names[-1]}'


def _relation(comparison: Comparison, margin: float) -> str:
    """Return the words between a block and a head by their verdict: 'is better than'."""
    if comparison.verdict in ('better', 'worse'):
        return f'is {comparison.verdict} than'
    if comparison.verdict == 'equal':
        return f'does not differ by more than {points_of_margin(margin)} from'
    more = {
        'few seeds': 'seeds',
        'few pictures': 'test pictures',
        'few seeds and pictures': 'seeds and test pictures',
        'few groups': 'groups of test pictures',
    }
    if comparison.reason in more:
        return f'needs more {more[comparison.reason]} to be told from'
    return 'cannot be told from'


def _cause(comparisons: Sequence[Comparison], heads: Mapping[str, HeadSpec]) -> str:
    """Return why a block helps, as far as the comparisons show it, as a clause.

    A family counts as beaten if the block is better than each of its heads, and as not
    beaten if the block is equal to or worse than one of them; else it is undecided.

    Args:
        comparisons (Sequence[Comparison]): The comparisons of the block.
        heads (Mapping[str, HeadSpec]): Name -> head.
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
