"""What a study shows in words: the answer, and all comparisons in a sentence."""

import gc

import numpy as np
import pytest

from lm4ve.study.heads.head import HeadSpec
from lm4ve.study.heads.sentence import (
    Subject,
    answer,
    conclude,
    name_block,
    name_data,
    short_name,
)
from lm4ve.study.heads.verdict import Comparison, compare

HEADS = {
    name: HeadSpec(name, name, f'the {name}')
    for name in ('frozen', 'linear', 'logreg', 'random', 'formal')
}
SUBJECT = Subject(
    block='layer 5 of gpt2',
    encoder='lite0',
    data='photos',
    seeds=dict(frozen=6, linear=8, logreg=1),
    test_pictures=200,
    accuracies=dict(frozen=70.0, linear=70.0, logreg=70.0),
)


@pytest.fixture(autouse=True)
def quick_correction(monkeypatch):
    """statsmodels collects garbage in every correction, for a quarter of a second."""
    monkeypatch.setattr(gc, 'collect', lambda *args: 0)


def compare_by_points(**points):
    """Compare 'frozen' with other heads that have some points less or more than half."""
    correct = {}
    for name, difference in points.items():
        correct[name] = np.zeros((4, 1000), bool)
        correct[name][:, : 500 + 10 * difference] = True
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
    text = answer(comparisons, HEADS, SUBJECT, 1.0)
    assert meaning in text
    assert text.startswith('Yes: ' if linear < 0 else 'No: ')
    assert 'layer 5 of gpt2 ' in text and 'lite0 on photos; it ' in text
    if linear < 0:
        words = 'better than the linear by 9 points (95 %: 7.2 to 10.8)'
        assert words in text
        assert words in conclude(comparisons, HEADS, 0, 1.0)


@pytest.mark.parametrize(
    'needed, few, enough',
    [
        (dict(pictures_needed=4014), '200 test pictures', '4,100'),
        (dict(seeds_needed=1950), '6 seeds', '2,000'),
        (
            dict(seeds_needed=61, pictures_needed=2292),
            '6 seeds and 200 test pictures',
            '61 seeds and 2,300 test pictures',
        ),
    ],
)
def test_an_open_answer_names_what_is_too_few_and_what_would_do(needed, few, enough):
    interval = (-3.0, 1.0)
    one = Comparison('frozen', 'linear', -1.0, interval, interval, 0.3, **needed)
    assert answer([one], HEADS, SUBJECT, 1.0) == (
        f'Open: {few} cannot show whether layer 5 of gpt2 helps lite0 on photos '
        f'(-1 point against the linear); about {enough} would.'
    )


def test_the_probe_that_is_hardest_to_beat_decides():
    comparisons = compare_by_points(frozen=9, linear=12, logreg=15, random=0)
    text = answer(comparisons, HEADS, SUBJECT, 1.0)
    assert text.startswith('No: ') and 'worse than the logreg by 6' in text


def test_an_undecided_probe_leaves_the_answer_open():
    beaten = Comparison('frozen', 'linear', 5.0, (4, 6), (4, 6), 0.0, 0.0, 'better')
    open_one = Comparison(
        'frozen', 'logreg', 3.0, (-1, 7), (-1, 7), 0.2, seeds_needed=9
    )
    text = answer([beaten, open_one], HEADS, SUBJECT, 1.0)
    # A head without seeds stands beside each of the block's.
    assert text.startswith('Open: 6 seeds cannot')
    assert '(+3 points against the logreg); about 9 would.' in text


def test_without_a_probe_the_answer_is_open():
    comparisons = compare_by_points(frozen=9, random=0)
    assert 'without a linear probe' in answer(comparisons, HEADS, SUBJECT, 1.0)


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


def test_where_a_probe_is_right_everywhere_there_is_no_room_for_a_block():
    linear = np.ones((6, 40), bool)
    frozen = linear.copy()
    frozen[0, :2] = False
    frozen[3, 5] = False
    comparisons = compare(
        dict(frozen=frozen, linear=linear), [('frozen', 'linear')], 1.0
    )
    heads = {
        name: HeadSpec(name, name, f'the {name} probe') for name in ('frozen', 'linear')
    }
    for accuracy, start in (
        (99.5, 'No: layer 5 of gpt2 has no room'),
        (98.0, 'Open: '),
    ):
        subject = SUBJECT._replace(accuracies=dict(linear=accuracy), test_pictures=40)
        assert answer(comparisons, heads, subject, 1.0).startswith(start)
