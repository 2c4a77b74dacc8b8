"""The pages of the evidence follow from the stored studies: each number is computed anew here.

The computation is the protocol's in numpy and scipy; of the code under test it uses
nothing but the markers of the pages.
"""

import base64
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import brentq
from scipy.stats import t

from tests.helpers.stored_studies import store_grid, store_heads
from tests.helpers.tasks import ROOT
from tests.helpers.tools import load_tool

TOOL = load_tool('analysis/evidence_page.py')
PAGE = ROOT / 'docs/results/evidence.md'
README = ROOT / 'README.md'
EVIDENCE = ROOT / 'docs/results/evidence'
_MADE = re.compile(
    r'<!-- made by tools/analysis/evidence_page.py: (.+?) -->\n\n(.*?)\n\n<!-- end of \1 -->',
    re.DOTALL,
)
_STUDY = re.compile(r'^\*\*(?P<title>.+?)\*\* \(`(?P<name>.+?)`\): (?P<text>.*)$', re.M)
_NUMBER = r'[+-]?\d+\.\d'
#: Half a unit of the last digit of a cell, and rounding.
_HALF = 0.05 + 1e-9
_BASELINES = ('none', 'logreg', 'knn')
#: The comparisons of the protocol.
PLANNED = 24


# -------------------------------------------------------------------- numbers, again
@dataclass
class Expected:
    """A comparison of the block with a row."""

    difference: float
    low: float
    high: float
    p: float
    corrected: float = np.nan
    verdict: str = 'open'


@dataclass
class Study:
    """A stored study: points of each row ``[seeds, pictures]``, and what was compared."""

    block: str
    scores: dict[str, np.ndarray]
    groups: np.ndarray
    step: float
    seeds: int
    pairs: list
    pictures: int
    is_grid: bool

    def errors(self, gain: np.ndarray) -> tuple[float, float, float]:
        """Standard errors over seeds and over groups, and the number of equal groups."""
        seeds, count = gain.shape
        variance = max(gain.mean(1).var(ddof=1), self.step**2 / 12)
        over_seeds = np.sqrt(variance / seeds)
        if count == 1:
            return over_seeds, 0.0, 2.0
        frame = pd.Series(gain.mean(0) - gain.mean()).groupby(self.groups)
        shares = frame.size() / count
        equal = 1 / (shares**2).sum()
        variance = (frame.sum() / count).pow(2).sum() * equal / (equal - 1)
        return over_seeds, np.sqrt(max(variance, self.step**2)), equal

    def half(self, gain: np.ndarray) -> Callable[[float], float]:
        """alpha -> half of an interval; NaN with fewer than eight groups."""
        over_seeds, over_groups, equal = self.errors(gain)
        freedom = [gain.shape[0] - 1, equal - 1]
        if gain.shape[1] > 1 and round(equal) < 8:
            return lambda alpha: np.nan
        return lambda alpha: float(
            np.hypot(*(t.ppf(1 - alpha / 2, freedom) * [over_seeds, over_groups]))
        )

    def with_all_seeds(self, name: str) -> np.ndarray:
        own = self.scores[name]
        return np.repeat(own, self.seeds, axis=0) if len(own) == 1 else own

    def compare(self) -> dict[str, Expected]:
        """The planned comparisons of rows that have run."""
        found = {}
        gains = {}
        for block, against in self.pairs:
            if against in self.scores:
                gain = self.with_all_seeds(block) - self.with_all_seeds(against)
                found[against] = Expected(gain.mean(), np.nan, np.nan, self.p_of(gain))
                gains[against] = gain
        # What has not run, or has no p, counts with 1.
        missing = len(self.pairs) - len(found)
        p = [1.0 if np.isnan(one.p) else one.p for one in found.values()]
        corrected = holm([*p, *[1.0] * missing])
        kept = max(sum(value > 0.05 for value in corrected), 1)
        for (name, one), value in zip(found.items(), corrected, strict=False):
            half = self.half(gains[name])(0.05 / kept)
            one.low, one.high = one.difference - half, one.difference + half
            one.corrected = value
            if -1 < one.low and one.high < 1:
                one.verdict = 'equal'
            elif one.low > 0:
                one.verdict = 'better'
            elif one.high < 0:
                one.verdict = 'worse'
        return found

    def p_of(self, gain: np.ndarray) -> float:
        half = self.half(gain)
        if np.isnan(half(0.05)):
            return np.nan

        def beyond(log_alpha):
            return half(np.exp(log_alpha)) - abs(gain.mean())

        if beyond(np.log(1e-12)) <= 0:
            return 1e-12
        return float(np.exp(brentq(beyond, np.log(1e-12), 0)))


def holm(p: list[float]) -> list[float]:
    """Holm's corrected p, in the order of the p."""
    corrected = np.empty(len(p))
    largest = 0.0
    for rank, place in enumerate(np.argsort(p, kind='stable')):
        largest = max(largest, min(1.0, (len(p) - rank) * p[place]))
        corrected[place] = largest
    return corrected.tolist()


def read(folder: Path) -> Study:
    """Read the files that a study's numbers follow from."""
    facts = json.loads((folder / 'study.json').read_text())
    results = pd.read_csv(folder / 'results.csv', keep_default_na=False)
    is_grid = 'grid' in facts['question']
    pictures = pd.read_csv(folder / 'pictures.csv', keep_default_na=False)
    test = pictures[pictures['split'] == 'test']
    scores = {}
    for name, own in results.groupby('variant', sort=False):
        rows = [
            np.frombuffer(base64.b64decode(p.lstrip("'")), np.uint8)
            for p in own['predicted']
        ]
        scores[name] = 100.0 * (np.stack(rows) == test['label'].to_numpy())
    return Study(
        block='frozen pre-trained' if is_grid else 'frozen',
        scores=scores,
        groups=test['group'].to_numpy(),
        step=100 / len(test),
        seeds=len(facts['grid_seeds']) if is_grid else facts['settings']['seeds'],
        pairs=facts['pairs'],
        pictures=len(test),
        is_grid=is_grid,
    )


# ----------------------------------------------------------------------------- pages
def made(text: str) -> dict[str, str]:
    """What stands between the markers of a page, by name."""
    return dict(_MADE.findall(text))


def table_of(text: str) -> list[dict[str, str]]:
    """The first table of a text: a dict for each row."""
    lines = text[text.index('| ') :].split('\n\n')[0].splitlines()
    cells = [[cell.strip() for cell in line.strip('|').split('|')] for line in lines]
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


def assert_difference(cell: str, one: Expected) -> None:
    numbers = [float(n) for n in re.findall(_NUMBER, cell)]
    expected = [one.difference]
    if not np.isnan(one.low):
        expected += [one.low, one.high]
    assert numbers == pytest.approx(expected, abs=_HALF), cell


def assert_p(cell: str, p: float) -> None:
    if np.isnan(p):
        assert cell == '-'
    elif p < 0.001:
        assert cell == '< 0.001'
    else:
        assert float(cell) == pytest.approx(p, abs=5e-4 + 1e-9), cell


def assert_score(cell: str, study: Study, name: str) -> None:
    if name not in study.scores:
        assert cell == 'not run'
        return
    numbers = [float(n) for n in re.findall(_NUMBER, cell)]
    own = study.with_all_seeds(name)
    expected = [own.mean()]
    half = study.half(own)(0.05)
    if not np.isnan(half):
        expected.append(half)
    assert numbers == pytest.approx(expected, abs=_HALF), (name, cell)


def words(verdict: str) -> str:
    return 'within a point' if verdict == 'equal' else verdict


def assert_study(text: str, found: re.Match, study: Study) -> None:
    """Check a study's counts, sentence and table."""
    one_of = study.compare()
    if study.is_grid:
        counts = f'{study.pictures:,} samples, {study.seeds} seeds; '
    else:
        groups = len(np.unique(study.groups))
        of_groups = f' in {groups:,} groups' if groups < study.pictures else ''
        counts = f'{study.pictures:,} pictures{of_groups}, {study.seeds} seeds; '
    assert found['text'].startswith(counts)
    rows = table_of(text[found.end() :])
    planned = {against for _, against in study.pairs} | {study.block}
    assert {row['row'] for row in rows} == planned
    for row in rows:
        name = row['row']
        assert_score(row['accuracy'], study, name)
        if name in one_of:
            one = one_of[name]
            assert_difference(row[f'{study.block} minus it'], one)
            assert_p(row["Holm's p"], one.corrected)
            assert row['verdict'].split(' (')[0] == words(one.verdict), row
    baselines = [row['row'] for row in rows if row['row'] in _BASELINES]
    ran = [name for name in baselines if name in study.scores]
    assert [row['row'] for row in rows[: len(baselines)]] == baselines
    assert ran == sorted(ran, key=lambda name: -study.scores[name].mean())
    if study.is_grid:
        assert_grid_sentence(found['text'], one_of)
    else:
        assert_answer(found['text'], one_of)


def assert_answer(text: str, one_of: dict[str, Expected]) -> None:
    """Check a sentence that begins with Yes, No or Open: word, probe and numbers."""
    sentence = re.search(r'\b(Yes|No|Open): .*', text)
    probes = [one_of[name] for name in ('logreg', 'knn')]
    probes.sort(key=lambda one: one.difference)
    beaten_by = [one for one in probes if one.verdict in ('equal', 'worse')]
    undecided = [one for one in probes if one.verdict == 'open']
    word, decisive = 'Yes', probes[0]
    if beaten_by:
        word, decisive = 'No', beaten_by[0]
    elif undecided:
        word, decisive = 'Open', undecided[0]
    assert sentence[1] == word
    if decisive.verdict == 'equal':
        assert 'does not differ by more than 1 point' in sentence[0]
        return
    amount = re.search(r'(\d+(?:\.\d)?) points?', sentence[0].partition('(')[2])
    if word != 'Open':
        amount = re.search(r' by (\d+(?:\.\d)?) points?', sentence[0])
        ends = re.search(rf'points? \(({_NUMBER}) to ({_NUMBER})\)', sentence[0])
        expected = sorted((abs(decisive.low), abs(decisive.high)))
        numbers = [float(ends[1]), float(ends[2])]
        assert numbers == pytest.approx(expected, abs=_HALF)
    assert float(amount[1]) == pytest.approx(abs(decisive.difference), abs=_HALF)


def assert_grid_sentence(text: str, one_of: dict[str, Expected]) -> None:
    """Check a sentence with all comparisons: where each name stands, with which numbers."""
    relation = {'better': 'is better than', 'worse': 'is worse than'}
    relation |= {'equal': 'does not differ by more than 1 point from'}
    for name, one in one_of.items():
        if one.verdict == 'open':
            continue
        clause = text.partition(relation[one.verdict])[2].partition('; it ')[0]
        if one.verdict == 'equal':
            assert f"'{name}'" in clause
            continue
        pattern = rf"'{name}' by (\d+(?:\.\d)?) points? \(({_NUMBER}) to ({_NUMBER})\)"
        numbers = [float(n) for n in re.search(pattern, clause).groups()]
        ends = sorted((abs(one.low), abs(one.high)))
        assert numbers == pytest.approx([abs(one.difference), *ends], abs=_HALF)


def assert_pages(page: str, readme: str, folder: Path) -> int:
    """Check all that is made on both pages; return how many studies there are."""
    parts = made(page)
    text = text_of_stages(parts)
    found = {match['name']: match for match in _STUDY.finditer(text)}
    assert {path.name for path in folder.glob('*/')} == found.keys()
    assert text.count('**: not run.') == PLANNED - len(found)
    studies = {name: read(folder / name) for name in found}
    for name, study in studies.items():
        assert_study(text, found[name], study)

    rows = table_of(parts['primary comparisons'])
    assert len(rows) == PLANNED
    row_of = primary_rows(rows, found)
    primary = {name: primary_comparison(studies[name]) for name in row_of}
    for name, row in row_of.items():
        assert_primary_row(row, studies[name], primary[name])
    final, helped = assert_final_verdicts(row_of, studies, primary)

    for name in studies:
        is_open_now = final[name] != primary[name].verdict
        assert ('correction alone' in found[name]['text']) == is_open_now
    assert_controls(table_of(parts['controls']), studies)
    assert_predictions(parts['predictions'].splitlines(), final, helped, studies)

    lines = parts['summary'].splitlines()
    assert len(lines) == 4
    for verdict, word in (('worse', 'Worse'), ('equal', 'Within a point')):
        titles = [found[name]['title'] for name in final if final[name] == verdict]
        assert all(f'{word}: ' in lines[0] and title in lines[0] for title in titles)
    in_readme = made(readme)['the four lines'].splitlines()
    link = ' ([evidence](docs/results/evidence.md))'
    assert [line.replace(link, '') for line in in_readme] == lines
    assert_summary(lines, final, helped, studies, primary)
    return len(found)


def text_of_stages(parts: dict[str, str]) -> str:
    """What the page says of all studies; a blank line ends the last table of a stage."""
    stages = [text for name, text in parts.items() if name.startswith('stage')]
    return '\n\n'.join(stages)


def primary_rows(
    rows: list[dict[str, str]], found: dict[str, re.Match]
) -> dict[str, dict[str, str]]:
    """The row of each study that has run, by the study's name, in the table's order."""
    name_of = {match['title']: name for name, match in found.items()}
    row_of = {}
    for row in rows:
        name = name_of.get(row['study'])
        if name is None:
            assert row['test'] == 'not run'
        else:
            row_of[name] = row
    return row_of


def primary_baseline(study: Study) -> str:
    """The row that the block is compared with first."""
    return 'none' if study.is_grid else 'logreg'


def primary_comparison(study: Study) -> Expected:
    return study.compare()[primary_baseline(study)]


def assert_primary_row(row: dict[str, str], study: Study, one: Expected) -> None:
    """Check the scores, the difference and the p of a study's row."""
    assert_score(row['block'], study, study.block)
    assert_score(row['baseline'], study, primary_baseline(study))
    assert_difference(row['difference'], one)
    assert_p(row['p'], one.p)


def assert_final_verdicts(
    row_of: dict[str, dict[str, str]],
    studies: dict[str, Study],
    primary: dict[str, Expected],
) -> tuple[dict[str, str], list[str]]:
    """Check the verdicts that hold over all planned comparisons.

    Returns:
        tuple: The final verdict of each study, and the studies whose block helps.
    """
    # What has not run, or has no p, counts with 1.
    p = [1.0 if np.isnan(one.p) else one.p for one in primary.values()]
    p += [1.0] * (PLANNED - len(p))
    corrected = dict(zip(primary, holm(p), strict=False))
    final = {}
    helped = []
    for name, row in row_of.items():
        assert_p(row['p of 24'], corrected[name])
        final[name] = primary[name].verdict
        is_settled = corrected[name] <= 0.05 or final[name] == 'equal'
        if not is_settled:
            final[name] = 'open'
        expected = words(final[name])
        if final[name] == 'better' and beats_each_baseline(studies[name]):
            helped.append(name)
            expected += ': helps'
        assert row['verdict'] == expected
    return final, helped


def beats_each_baseline(study: Study) -> bool:
    """Whether the block is better than each baseline that has run."""
    one_of = study.compare()
    verdicts = [one_of[name].verdict for name in _BASELINES if name in one_of]
    return all(verdict == 'better' for verdict in verdicts)


def assert_summary(lines, final, helped, studies, primary) -> None:
    """Check the numbers of the four lines."""
    if not final:
        assert lines[0].startswith('- None of the 24 planned')
        assert lines[1].endswith('not run.')
        assert lines[2].endswith('not run.')
        return
    assert_counts(lines[0], list(final.values()))
    assert_decided(lines[0], final, studies)
    assert_fashion(lines[1], final, primary)
    if helped:
        assert_help(lines[2], helped, studies)
    else:
        assert 'In none' in lines[2]
        reach = sum(one.high >= 1 for one in primary.values())
        assert whole_numbers(lines[2]) == [len(final), reach, len(final), 1]


def whole_numbers(line: str) -> list[int]:
    return [int(n) for n in re.findall(r'\b\d+\b', line)]


def assert_counts(line: str, verdicts: list[str]) -> None:
    """Check how many comparisons and sets there are, and how many have each verdict."""
    counts = [verdicts.count(verdict) for verdict in ('better', 'worse', 'equal')]
    not_run = PLANNED - len(verdicts)
    if not_run:
        counts += [verdicts.count('open'), not_run]
    said = line.partition(';')[0]
    assert whole_numbers(said) == [PLANNED, 8, *counts]


def assert_decided(line: str, final: dict[str, str], studies: dict[str, Study]) -> None:
    """Check how many studies are worse, how many of these are below no layer, and what is equal."""
    worse = [name for name, verdict in final.items() if verdict == 'worse']
    if worse:
        also = sum(has_best_baseline(studies[name]) for name in worse)
        assert f'In {also} of these {len(worse)},' in line
    equal = [name for name, verdict in final.items() if verdict == 'equal']
    scores = re.findall(r'the baseline has (\d+\.\d) %', line)
    assert len(scores) == len(equal)
    for name, score in zip(equal, scores, strict=True):
        study = studies[name]
        mean = study.scores[primary_baseline(study)].mean()
        assert float(score) == pytest.approx(mean, abs=_HALF)


def has_best_baseline(study: Study) -> bool:
    """Whether the primary baseline has a higher mean than each row with a layer."""
    baseline = study.scores[primary_baseline(study)].mean()
    layers = [name for name in study.scores if name not in _BASELINES]
    return all(study.scores[name].mean() < baseline for name in layers)


def assert_controls(rows: list[dict[str, str]], studies: dict[str, Study]) -> None:
    """Check how many comparisons of each kind have each verdict, and in how many studies."""
    patterns = ('^knn', 'random', 'dyck|Dyck', '^attention', '^mlp')
    for row, pattern in zip(rows, patterns, strict=True):
        own = [verdicts_against(study.compare(), pattern) for study in studies.values()]
        assert int(row['studies']) == sum(verdicts != [] for verdicts in own)
        all_verdicts = [words(verdict) for verdicts in own for verdict in verdicts]
        for verdict in ('better', 'worse', 'within a point', 'open'):
            assert int(row[verdict]) == all_verdicts.count(verdict), (pattern, verdict)


def assert_predictions(
    lines: list[str],
    final: dict[str, str],
    helped: list[str],
    studies: dict[str, Study],
) -> None:
    """Check what is said to have become of the three predictions."""
    frozen = [name for name in final if re.match('(lite0|dinov2)_', name)]
    frozen = [name for name in frozen if not re.search('shots|fashion', name)]
    helped_there = len(set(helped) & set(frozen))
    assert lines[0].endswith(f': {helped_there} of {len(frozen)} help.')
    fashion = [words(final[name]) for name in final if name.endswith('_fashion')]
    assert lines[1].endswith(f': {", ".join(fashion) or "not run"}.')
    few = 'dinov2_digits_5-shots'
    if few not in studies:
        assert lines[2].endswith(': not run.')
        return
    one_of = studies[few].compare()
    with_baseline, with_random = lines[2].partition(': ')[2].split('; ')
    assert_difference(with_baseline, one_of['logreg'])
    assert with_baseline.endswith(f', {words(final[few])}')
    assert_difference(with_random, one_of['random'])
    assert f', {words(one_of["random"].verdict)}' in with_random


def assert_fashion(
    line: str, final: dict[str, str], primary: dict[str, Expected]
) -> None:
    """Check the difference and the verdict of each study of fashion."""
    names = [name for name in final if name.endswith('_fashion')]
    if not names:
        assert line.endswith('not run.')
        return
    said = line.partition('judges: ')[2]
    clauses = said.rstrip('.').split('; ')
    for name, clause in zip(names, clauses, strict=True):
        assert_difference(clause.partition(' ')[2], primary[name])
        expected = words(final[name])
        if final[name] != primary[name].verdict:
            expected += f' ({words(primary[name].verdict)} by its study alone)'
        assert clause.endswith(f', {expected}')


def assert_help(line: str, helped: list[str], studies: dict[str, Study]) -> None:
    """Check in how many studies the block helps, and by what."""
    by_training = 0
    by_language = 0
    trained_is_as_good = 0
    for name in helped:
        one_of = studies[name].compare()
        if is_better_than_all(one_of, 'random'):
            by_training += 1
            if is_better_than_all(one_of, 'Dyck|dyck'):
                by_language += 1
        trained = verdicts_against(one_of, '^attention|^mlp')
        if 'worse' in trained or 'equal' in trained:
            trained_is_as_good += 1
    sets = {re.sub(r'^[^_]*_|_5-shots$|_formal$', '', name) for name in helped}
    expected = [len(helped), len(studies), len(sets)]
    expected += [by_training, by_language, trained_is_as_good]
    assert whole_numbers(line) == expected


def verdicts_against(one_of: dict[str, Expected], pattern: str) -> list[str]:
    """The verdicts of the comparisons with rows whose name matches."""
    return [one.verdict for name, one in one_of.items() if re.search(pattern, name)]


def is_better_than_all(one_of: dict[str, Expected], pattern: str) -> bool:
    """Whether a row's name matches, and the block is better than each that does."""
    return set(verdicts_against(one_of, pattern)) == {'better'}


# ----------------------------------------------------------------------------- tests
@pytest.fixture(scope='module')
def stored(tmp_path_factory):
    """Studies with each verdict, few groups, a grid with a variant that has not run."""
    folder = tmp_path_factory.mktemp('evidence')
    good = {'logreg': 0.7, 'knn': 0.6, 'frozen': 0.95}
    good |= {'random': 0.8, 'formal (dyck)': 0.7, 'attention (parameters)': 0.951}
    poor = {'logreg': 0.9, 'knn': 0.95, 'frozen': 0.7, 'random': 0.702}
    store_heads(folder / 'lite0_glyphs', good, pictures=600, group=10)
    store_heads(folder / 'lite0_openmoji', good, pictures=30, group=10)
    # The table of a stage's last study, and then dinov2_digits, the next stage's first.
    store_heads(folder / 'lite0_easy-vqa', good, pictures=300, group=1)
    store_heads(folder / 'dinov2_digits', poor, pictures=300, group=1)
    same = {'logreg': 0.9, 'knn': 0.1, 'frozen': 0.9, 'random': 0.85}
    store_heads(folder / 'lite0_fashion', same, pictures=3000, group=1)
    grid = {
        'none': [96.3, 96.1, 97.2, 96.0],
        'frozen pre-trained': [98.5, 98.1, 98.3, 99.1],
        'frozen random': [98.4, 10.2, 11.0, 98.0],
        'Dyck': [98.4, 98.1, 98.3, 99.0],
        'attention layer': [],
    }
    store_grid(folder / 'digits_formal', grid)
    return folder


def test_each_number_and_sentence_follows_from_the_stored_files(stored, capsys):
    found = TOOL['read_all'](stored)
    page = TOOL['with_evidence'](PAGE.read_text(), found)
    readme = TOOL['with_evidence'](README.read_text(), found)
    assert assert_pages(page, readme, stored) == 6
    verdicts = {row['verdict'] for row in table_of(made(page)['primary comparisons'])}
    assert verdicts >= {'better: helps', 'worse', 'within a point', 'open'}
    assert 'open (few groups)' in page
    assert 'At chance level, and counted: trainings 2 of frozen random.' in page
    assert '0.003 (end of the ladder)' in page
    assert '2026-12-02, commit 0123456789ab' in page


def test_the_pages_are_those_of_the_stored_studies():
    assert TOOL['write_pages'](check=True) == []
    assert_pages(PAGE.read_text(), README.read_text(), EVIDENCE)


def test_an_interval_that_does_not_follow_from_the_results_is_found(stored, tmp_path):
    folder = tmp_path / 'evidence'
    (folder / 'lite0_glyphs').mkdir(parents=True)
    for path in (stored / 'lite0_glyphs').iterdir():
        (folder / 'lite0_glyphs' / path.name).write_bytes(path.read_bytes())
    path = folder / 'lite0_glyphs/comparisons.csv'
    table = pd.read_csv(path)
    table['low'] -= 1.0
    table.to_csv(path, index=False)
    found = TOOL['read_all'](folder)
    pages = [TOOL['with_evidence'](p.read_text(), found) for p in (PAGE, README)]
    with pytest.raises(AssertionError):
        assert_pages(*pages, folder)
