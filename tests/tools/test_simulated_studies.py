"""Studies whose truth is known: how often a verdict is wrong."""

import pytest

from tests.helpers.tools import load_tool, run_tool_here

TOOL = load_tool('dev/simulated_studies.py')
Size, Truth, measure = TOOL['Size'], TOOL['Truth'], TOOL['measure']


@pytest.mark.slow
def test_tuning_in_each_seed_is_counted_and_one_for_all_seeds_is_not():
    size = Size(rows=7, seeds=8, pictures=2080)
    own, _ = measure(Truth('digits', tuning=1.4), [size], 60)
    shared, lost = measure(Truth('digits', tuning=1.4, shared=True), [size], 60)
    assert lost == pytest.approx(1.4, abs=0.3)
    # 5 % and three standard errors; the other one is wrong in nearly all.
    assert own[size].wrong <= 8
    assert own[size].covered >= 0.85 * own[size].intervals
    assert shared[size].wrong >= 30


@pytest.mark.slow
def test_three_points_are_found_on_300_digits():
    size = Size(rows=7, seeds=8, pictures=300)
    tallies, _ = measure(Truth('digits', gain=3.0), [size], 30)
    assert tallies[size].percent('better') >= 80
    assert tallies[size].percent('equal', 'worse') == 0


def test_page_without_markers_is_refused(tmp_path):
    page = tmp_path / 'page.md'
    page.write_text('nothing')
    with pytest.raises(SystemExit, match='lacks the line'):
        run_tool_here('dev/simulated_studies.py', '--studies', 1, '--write', page)
