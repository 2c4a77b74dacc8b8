"""What a study shows in words: the answer, and all comparisons in a sentence."""

import gc
from dataclasses import replace

import numpy as np
import pytest

from lm4ve.study.cells import Metric
from lm4ve.study.compare import Comparison, compare
from lm4ve.study.heads.head import HeadSpec
from lm4ve.study.heads.names import name_block, name_data, short_name
from lm4ve.study.sentence import Subject, answer, conclude

HEADS = {
    name: HeadSpec(name, name, f'the {name}')
    for name in ('frozen', 'linear', 'logreg', 'random', 'formal')
}
SUBJECT = Subject('layer 5 of gpt2', 'lite0', 'photos', Metric(), margin=1.0)


@pytest.fixture(autouse=True)
def quick_correction(monkeypatch):
    """statsmodels collects garbage in every correction, for a quarter of a second."""
    monkeypatch.setattr(gc, 'collect', lambda *args: 0)


def compare_by_points(**points):
    """Compare 'frozen' with other heads that have some points less or more than half."""
    correct = {}
    for name, difference in points.items():
        correct[name] = np.zeros((4, 1000))
        correct[name][:, : 500 + 10 * difference] = 100
    pairs = [('frozen', name) for name in correct if name != 'frozen']
    return compare(correct, pairs, 1.0)


@pytest.mark.parametrize(
    'linear, random, formal, meaning',
    [
        (0, 0, 0, 'does not help'),
        (9, 0, 0, 'does not help'),
        (-9, 0, -9, 'but not by its pre-training'),
        (-9, -9, 0, 'it is not the language'),
        (-9, -9, -9, 'more than that on a formal language'),
        (-9, -9, None, 'whether it is the language is open'),
    ],
)
def test_the_answer_says_what_follows(linear, random, formal, meaning):
    points = dict(frozen=0, linear=linear, random=random)
    if formal is not None:
        points['formal'] = formal
    comparisons = compare_by_points(**points)
    text = answer(comparisons, HEADS, SUBJECT)
    assert meaning in text
    assert text.startswith('Yes: ' if linear < 0 else 'No: ')
    assert 'layer 5 of gpt2 ' in text and 'lite0 on photos; it ' in text
    if linear < 0:
        words = 'better than the linear by 9 points ('
        assert words in text
        assert words in conclude(comparisons, HEADS, Metric(), 1.0)


def open_comparison(**fields):
    """Return a comparison of six seeds on 200 pictures, without a verdict."""
    return Comparison(
        'frozen', 'linear', -1.0, -3.0, 1.0, seeds=6, pictures=200, groups=200, **fields
    )


@pytest.mark.parametrize(
    'needed, few, enough',
    [
        (dict(needed_pictures=4014), '200 test pictures', '4,100'),
        (dict(needed_seeds=1950), '6 seeds', '2,000'),
        (
            dict(needed_seeds=61, needed_pictures=2292),
            '6 seeds and 200 test pictures',
            '61 seeds and 2,300 test pictures',
        ),
    ],
)
def test_an_open_answer_names_what_is_too_few_and_what_would_do(needed, few, enough):
    one = open_comparison(reason='few seeds', **needed)
    assert answer([one], HEADS, SUBJECT) == (
        f'Open: {few} cannot show whether layer 5 of gpt2 helps lite0 on photos '
        f'(-1 point against the linear); about {enough} would.'
    )


@pytest.mark.parametrize(
    'reason, words',
    [
        ('few groups', 'Open: 200 groups of test pictures are too few to show whether'),
        ('at chance level', 'Open: at chance level nothing shows whether layer 5 of'),
    ],
)
def test_no_number_is_promised_that_nobody_can_tell(reason, words):
    text = answer([open_comparison(reason=reason)], HEADS, SUBJECT)
    assert text.startswith(words)
    assert 'would' not in text


@pytest.mark.parametrize(
    'pictures, present', [(200, '6 seeds and 200 test pictures'), (1, '6 seeds')]
)
def test_no_number_is_promised_that_nobody_would_take(pictures, present):
    one = replace(open_comparison(reason='small difference'), pictures=pictures)
    assert answer([one], HEADS, SUBJECT) == (
        f'Open: {present} cannot show whether layer 5 of gpt2 helps lite0 on photos '
        '(-1 point against the linear), nor would 10 times as many.'
    )


def test_the_strongest_probe_decides():
    comparisons = compare_by_points(frozen=9, logreg=15, linear=12, random=0)
    text = answer(comparisons, HEADS, SUBJECT)
    assert text.startswith('No: ') and 'worse than the logreg by 6' in text


def test_an_undecided_probe_leaves_the_answer_open():
    beaten = Comparison('frozen', 'linear', 5.0, 4.0, 6.0, verdict='better')
    open_one = Comparison(
        'frozen', 'logreg', 3.0, -1.0, 7.0, reason='few seeds', needed_seeds=9, seeds=6
    )
    text = answer([beaten, open_one], HEADS, SUBJECT)
    assert text.startswith('Open: 6 seeds cannot')
    assert '(+3 points against the logreg); about 9 would.' in text


def test_without_a_probe_the_answer_is_open():
    comparisons = compare_by_points(frozen=9, random=0)
    assert 'without a linear probe' in answer(comparisons, HEADS, SUBJECT)


@pytest.mark.parametrize(
    'layers, heads, name',
    [
        ((-1,), None, 'the last layer of gpt2'),
        ((5,), None, 'layer 5 of gpt2'),
        ((24, 25, 26), (2, 28), 'layers 24-26 of gpt2 with heads 2 and 28'),
    ],
)
def test_a_block_is_named_by_its_layers_and_model(layers, heads, name):
    block = dict(checkpoint='/models/gpt2', layers=layers)
    if heads is not None:
        block['heads'] = heads
    assert name_block(HeadSpec('frozen', 'frozen', '', block)) == name


@pytest.mark.parametrize(
    'source, name',
    [
        ('package:all-MiniLM-L6-v2', 'all-MiniLM-L6-v2'),
        ('timm/vit_small_patch14_dinov2', 'vit_small_patch14_dinov2'),
        ('photos/', 'photos'),
        ('data/digits/pictures.csv', 'digits/pictures.csv'),
        ('config:pointcloud/x.py', 'x'),
        ('/models/llama-3.2-1b', 'llama-3.2-1b'),
    ],
)
def test_a_source_is_known_by_its_last_part(source, name):
    assert short_name(source) == name


def test_data_of_the_encoders_config_are_its_own():
    config = 'configs/pointcloud/x.py'
    assert name_data(f'config:{config}', config) == 'its own data'
    assert name_data('photos/', config) == 'photos'
