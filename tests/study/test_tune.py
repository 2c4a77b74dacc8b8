"""Values of a ladder: which to try, which are within the noise, which a seed takes."""

import numpy as np
import pytest

from lm4ve.study.tune import next_values, value_of_seed, within_noise

LADDER = (1, 2, 3, 4, 5, 6, 7)


@pytest.mark.parametrize(
    'accuracies, wanted',
    [
        ({}, [3, 4, 5]),
        ({3: 0.5, 4: 0.7, 5: 0.6}, []),
        ({3: 0.5, 4: 0.6, 5: 0.7}, [6]),
        ({3: 0.5, 4: 0.6, 5: 0.7, 6: 0.8}, [7]),
        ({3: 0.5, 4: 0.6, 5: 0.7, 6: 0.8, 7: 0.9}, []),
        ({4: 0.6, 5: 0.6}, [3]),
    ],
)
def test_neighbours_of_the_best_value_are_tried(accuracies, wanted):
    assert next_values(LADDER, accuracies) == wanted


def test_short_ladder_is_tried_whole():
    assert next_values((20,), {}) == [20]
    assert next_values((20,), {20: 0.5}) == []


def rights(*right: int) -> np.ndarray:
    """Return 100 pictures of which the first so many, and none of the rest, are right."""
    return np.arange(100) < np.array(right).sum()


def test_values_within_the_noise_of_val_are_kept():
    correct = {
        1: rights(70),
        2: rights(80),
        3: rights(79),
        4: rights(77),
        5: rights(75),
    }
    # Behind by n of n pictures that differ, which is sqrt(n) standard errors.
    assert within_noise(correct) == [2, 3, 4]
    assert within_noise({1: rights(80), 2: rights(80)}) == [1, 2]


def test_groups_of_val_pictures_count_as_one():
    correct = {1: rights(80), 2: rights(75)}
    assert within_noise(correct) == [1]
    assert within_noise(correct, groups=np.arange(100) // 5) == [1, 2]


def test_seed_takes_the_best_of_the_kept_values():
    accuracies = {1: 0.9, 2: 0.5, 3: 0.6, 4: 0.6}
    assert value_of_seed([2, 3, 4], accuracies) == 3
