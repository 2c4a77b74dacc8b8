"""Write the evidence into the pages, from the stored studies alone.

    python tools/analysis/evidence_page.py            # write docs/results/evidence.md and README.md
    python tools/analysis/evidence_page.py --check    # name the pages that differ

What stands between the markers of a page is made here; docs/results/protocol.md has the
rules. A study that is not stored appears as not run.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from evidence_studies import EVIDENCE, LAST, ROOT, STAGES, STUDIES, Study
from statsmodels.stats.multitest import multipletests

from lm4ve.errors import require
from lm4ve.files import read_json
from lm4ve.runner.command_line import build_parser
from lm4ve.study.cells import Metric, format_p_value
from lm4ve.study.compare import ALPHA, Score
from lm4ve.study.heads import contents as heads
from lm4ve.study.heads.stored import read_study
from lm4ve.study.report import Report
from lm4ve.study.trainings import contents as trainings
from lm4ve.study.trainings.stored import read_grid_study

PAGES = (ROOT / 'docs/results/evidence.md', ROOT / 'README.md')
START = '<!-- made by tools/analysis/evidence_page.py: {} -->'
END = '<!-- end of {} -->'
#: Beside the files of a report: date and commit.
RUN = 'run.json'
#: Rows without a layer, which the block has to beat in order to help.
BASELINES = ('none', 'logreg', 'knn')
#: Rows that share the block's shape, and those that know a formal language.
RANDOM = ('random', 'frozen random')
FORMAL = ('formal', 'Dyck')
TRAINED = ('attention', 'mlp')
#: Kind of row, in words -> how the names of its rows begin.
CONTROLS = {
    'nearest neighbours': ('knn',),
    'a random block': RANDOM,
    'a block that knows a formal language': FORMAL,
    'a trained attention layer': ('attention',),
    'a trained MLP': ('mlp',),
}
#: The study of the protocol's third prediction.
FEW_DIGITS = 'dinov2_digits_5-shots'
VERDICTS = ('better', 'worse', 'equal', 'open')
#: In points: of all studies, by the protocol.
MARGIN = 1
END_OF_LADDER = ' (end of the ladder)'
_METRIC = Metric()


@dataclass(frozen=True)
class Row:
    """A row of a study.

    Attributes:
        name (str): Of the variant.
        score (Score, optional): In per cent; None if it did not run.
        values (str): Which rates its seeds took; marked where the best is at an end of
            the ladder.
        at_chance (int): How many of its trainings score as naming one class does.
        comparison (pd.Series, optional): The block's with this row, as stored.
    """

    name: str
    score: Score | None
    values: str
    at_chance: int
    comparison: pd.Series | None

    @property
    def verdict(self) -> str:
        """What the block is against this row."""
        return '' if self.comparison is None else self.comparison['verdict']


@dataclass(frozen=True)
class Stored:
    """A study that has run.

    Attributes:
        study (Study): Which one.
        rows (list[Row]): In the order of its report.
        counts (str): Numbers of test pictures, groups and seeds.
        sentence (str): The first one of its report.
        run (dict[str, str]): Date and commit.
    """

    study: Study
    rows: list[Row]
    counts: str
    sentence: str
    run: dict[str, str]

    @property
    def primary(self) -> pd.Series:
        """The comparison of the block with the baseline."""
        return self.row(self.study.baseline).comparison

    def row(self, name: str) -> Row:
        """Return the row of a variant."""
        return next(row for row in self.rows if row.name == name)

    def verdicts(self, *names: str) -> set[str]:
        """Return what the block is against the rows whose names begin so."""
        return {row.verdict for row in self.rows if row.name.startswith(names)}

    def verdicts_that_ran(self, *names: str) -> list[str]:
        """Return each verdict against the rows whose names begin so, and that have scores."""
        verdicts = []
        for row in self.rows:
            is_asked = row.name.startswith(names)
            if is_asked and row.score is not None:
                verdicts.append(row.verdict)
        return verdicts


# ---------------------------------------------------------------------------- reading
def read_all(folder: Path) -> dict[str, Stored | None]:
    """Return the protocol's studies by name, in its order; None for one that has not run."""
    found: dict[str, Stored | None] = {}
    for study in STUDIES:
        found[study.name] = None
        if (folder / study.name).is_dir():
            found[study.name] = read_stored(study, folder / study.name)
    return found


def read_stored(study: Study, folder: Path) -> Stored:
    """Read a stored study."""
    read = _read_grid if study.is_grid else _read_heads
    report, values, share, samples, counts = read(folder)
    chance = chance_level(share, samples)
    comparisons = pd.read_csv(folder / 'comparisons.csv', keep_default_na=False)
    comparison_with = dict(zip(comparisons['against'], comparisons.iloc, strict=True))
    rows = []
    for name in report.names:
        score = report.scores.get(name)
        at_chance = 0 if score is None else int((score.of_seeds <= chance).sum())
        row = Row(
            name, score, values.get(name, ''), at_chance, comparison_with.get(name)
        )
        rows.append(row)
    sentence = (folder / 'sentence.txt').read_text(encoding='utf-8').splitlines()[0]
    return Stored(study, rows, counts, sentence, read_json(folder / RUN))


class _Read(NamedTuple):
    """What a study's files say beside its comparisons.

    Attributes:
        report (Report): Its report.
        values (dict[str, str]): Variant -> which rates its seeds took.
        share (float): Of the most frequent class.
        samples (int): Of the test.
        counts (str): Numbers of samples, groups and seeds.
    """

    report: Report
    values: dict[str, str]
    share: float
    samples: int
    counts: str


def _read_heads(folder: Path) -> _Read:
    """Read a study of heads."""
    stored, _ = read_study(folder)
    results = stored.results
    data = stored.features.data
    test = data.splits['test']
    values = {}
    for name in results.values:
        values[name] = results.describe_values(name)
        if results.is_edge(name):
            values[name] += END_OF_LADDER
    groups = len(np.unique(data.groups[test]))
    counts = f'{len(test):,} pictures'
    if groups < len(test):
        counts += f' in {groups:,} groups'
    return _Read(
        report=heads.report_of(stored, None),
        values=values,
        share=float(np.bincount(data.labels[test]).max() / len(test)),
        samples=len(test),
        counts=f'{counts}, {stored.settings.seeds} seeds',
    )


def _read_grid(folder: Path) -> _Read:
    """Read a grid.

    Raises:
        UserError: The samples of its test are not known, so that seeds alone would count.
    """
    stored = read_grid_study(folder)
    require(stored.has_samples, f"'{folder}' does not know the samples of its test.")
    best = best_values(folder / 'tuning.csv', stored.metric.name)
    values = {}
    for name, own in stored.results.groupby('variant', sort=False):
        values[name] = describe_values(own['value'])
        if best[name] in (stored.ladder[0], stored.ladder[-1]):
            values[name] += END_OF_LADDER
    samples = len(stored.labels)
    return _Read(
        report=trainings.report_of(stored),
        values=values,
        share=float(np.bincount(stored.labels).max() / samples),
        samples=samples,
        counts=f'{samples:,} samples, {len(stored.seeds)} seeds',
    )


def best_values(path: Path, metric: str) -> dict[str, str]:
    """Return variant -> the value that was best in the shared tuning of a grid."""
    table = pd.read_csv(path, dtype=dict(value=str), keep_default_na=False)
    table = table[table['stage'] == 'tune']
    best = {}
    for name, own in table.groupby('variant', sort=False):
        best[name] = own.groupby('value', sort=False)[metric].mean().idxmax()
    return best


def describe_values(values: pd.Series) -> str:
    """Return the values that seeds took: '0.003', or '0.001 to 0.006'."""
    smallest, largest = min(values, key=float), max(values, key=float)
    return smallest if smallest == largest else f'{smallest} to {largest}'


def chance_level(share: float, count: int) -> float:
    """Return the per cent that naming one class reaches, and two standard errors.

    Args:
        share (float): Of the most frequent class.
        count (int): Of test pictures.
    """
    return float(100 * (share + 2 * np.sqrt(share * (1 - share) / count)))


# -------------------------------------------------------------------------- decisions
def correct_all(found: dict[str, Stored | None]) -> dict[str, float]:
    """Return the p of each primary comparison, corrected by Holm over all that are planned.

    One that has no p, or did not run, has 1.
    """
    p = []
    for stored in found.values():
        one = np.nan if stored is None else _number(stored.primary['p'])
        p.append(1.0 if np.isnan(one) else one)
    corrected = multipletests(p, ALPHA, method='holm')[1]
    return dict(zip(found, corrected.tolist(), strict=True))


def final_verdict(stored: Stored, p: float) -> str:
    """Return the verdict of a primary comparison after the correction over all.

    Args:
        stored (Stored): The study.
        p (float): The corrected p.
    """
    verdict: str = stored.primary['verdict']
    if verdict in ('better', 'worse') and p > ALPHA:
        return 'open'
    return verdict


def is_undone(stored: Stored, p: float) -> bool:
    """Return whether the correction over all opens what the study's own one decided."""
    return final_verdict(stored, p) != stored.primary['verdict']


def helps(stored: Stored, p: float) -> bool:
    """Return whether the block helps in a study; arguments of :func:`final_verdict`."""
    others = stored.verdicts(*BASELINES)
    return others == {'better'} and final_verdict(stored, p) == 'better'


# -------------------------------------------------------------------------- sentences
def write_summary(found: dict[str, Stored | None], link: str) -> str:
    """Return the four lines that README has.

    Args:
        found (dict): The studies.
        link (str): To the page of the evidence; empty on that page.
    """
    where = f' ([evidence]({link}))' if link else ''
    lines = [
        f'{say_all(found)}{where}. {say_decided(found)}',
        say_fashion(found),
        say_cause(found),
        'Limits: few tokens, pictures and steps. Configs for large data sets have not been run, '
        'and nothing follows for ImageNet.',
    ]
    return '\n'.join(f'- {line}' for line in lines)


def say_all(found: dict[str, Stored | None]) -> str:
    """Return the sentence about all primary comparisons, without its full stop."""
    number = len(found)
    sets = len({study.data for study in STUDIES})
    p = correct_all(found)
    verdicts = [final_verdict(one, p[name]) for name, one in found.items() if one]
    what = f'comparisons of the block with its baseline, on {sets} sets,'
    if not verdicts:
        return f'None of the {number} planned {what} has run'
    better, worse, equal, is_open = map(verdicts.count, VERDICTS)
    others = 'the others open'
    if len(verdicts) < number:
        others = f'{is_open} open, {number - len(verdicts)} not run'
    return (
        f'Of {number} {what} {_are(better)} better, {worse} worse, {equal} within a point, '
        f'{others}; with no difference anywhere, the chance of any "better" or "worse" is '
        f'held at {100 * ALPHA:g} % (by Holm, with approximate intervals)'
    )


def say_decided(found: dict[str, Stored | None]) -> str:
    """Return the line about the comparisons that are worse, or within a point."""
    p = correct_all(found)
    ran = [one for one in found.values() if one is not None]
    worse = [one for one in ran if final_verdict(one, p[one.study.name]) == 'worse']
    equal = [one for one in ran if final_verdict(one, p[one.study.name]) == 'equal']
    sentences = []
    if worse:
        titles = '; '.join(one.study.title for one in worse)
        also = sum(is_above_all_layers(one) for one in worse)
        sentences.append(
            f'Worse: {titles}. In {also} of these {len(worse)}, every other head that was '
            'trained has a lower mean than the baseline, too: so it may be the short training.'
        )
    for one in equal:
        score = one.row(one.study.baseline).score.mean
        sentences.append(
            f'Within a point: {one.study.title}, where the baseline has {score:.1f} %.'
        )
    return ' '.join(sentences) or 'Worse, or within a point: none.'


def is_above_all_layers(stored: Stored) -> bool:
    """Return whether the baseline has a higher mean than each row with a layer."""
    baseline = stored.row(stored.study.baseline).score.mean
    for row in stored.rows:
        has_layer = row.name not in BASELINES
        if has_layer and row.score is not None and row.score.mean >= baseline:
            return False
    return True


def say_fashion(found: dict[str, Stored | None]) -> str:
    """Return the line about the set that was not scored before."""
    p = correct_all(found)
    clauses = []
    for study in STUDIES:
        stored = found[study.name]
        if study.stage != LAST or stored is None:
            continue
        one = stored.primary
        encoder = study.title.partition(',')[0]
        verdict = _words(final_verdict(stored, p[study.name]))
        if is_undone(stored, p[study.name]):
            verdict += f' ({_words(one["verdict"])} by its study alone)'
        clauses.append(f'{encoder} {_difference(one)}, {verdict}')
    if not clauses:
        return 'Fashion, a set that nobody here has scored: not run.'
    return (
        'Fashion, scored once and last, the block against logistic regression in points, '
        'with the interval that its study judges: '
        f'{"; ".join(clauses)}.'
    )


def say_cause(found: dict[str, Stored | None]) -> str:
    """Return the line about pre-training and language."""
    p = correct_all(found)
    ran = [one for one in found.values() if one is not None]
    if not ran:
        return 'Whether a gain is by pre-training, or by language: not run.'
    helped = [one for one in ran if helps(one, p[one.study.name])]
    if not helped:
        reach = sum(_number(one.primary['high']) >= MARGIN for one in ran)
        return (
            f'In none of the {len(ran)} studies that have run is the block shown to help (to be '
            'better than each baseline, after the correction), so whether a gain is by '
            'pre-training, or by language, was not decided. A gain is not excluded either: '
            f'{reach} of the {len(ran)} intervals reach {MARGIN} point or more.'
        )
    sets = len({one.study.data for one in helped})
    by_training = [one for one in helped if one.verdicts(*RANDOM) == {'better'}]
    by_language = [one for one in by_training if one.verdicts(*FORMAL) == {'better'}]
    trained = [one for one in helped if one.verdicts(*TRAINED) & {'worse', 'equal'}]
    on_sets = '1 set' if sets == 1 else f'{sets} sets'
    return (
        f'The block helps (is better than each baseline) in {len(helped)} of {len(ran)} studies '
        f'that have run, on {on_sets}: by its pre-training in {len(by_training)} '
        f'(better than a random block), by language in {len(by_language)} (than one of a formal '
        f'language too); in {len(trained)} a trained layer does as well.'
    )


def write_predictions(found: dict[str, Stored | None]) -> str:
    """Return what became of the protocol's predictions, a line each."""
    p = correct_all(found)
    frozen = [one for one in found.values() if one and one.study.stage in (1, 2)]
    helped = sum(helps(one, p[one.study.name]) for one in frozen)
    fashion = [one for one in found.values() if one and one.study.stage == LAST]
    verdicts = [_words(final_verdict(one, p[one.study.name])) for one in fashion]
    lines = [
        'Behind Lite0 and DINOv2 with all pictures no study helps: '
        f'{helped} of {len(frozen)} help.',
        'On fashion the block is worse than logistic regression, or within a point of it: '
        f'{", ".join(verdicts) or "not run"}.',
    ]
    few = found[FEW_DIGITS]
    outcome = 'not run'
    if few is not None:
        verdict = _words(final_verdict(few, p[FEW_DIGITS]))
        with_random = few.row('random').comparison
        outcome = f'{_difference(few.primary)} against logistic regression, {verdict}; '
        outcome += f'{_difference(with_random)} against a random block, {_verdict(with_random)}'
    lines.append(
        'Digits behind DINOv2 with five pictures of each class helps, and a random block as '
        f'much: {outcome}.'
    )
    return '\n'.join(f'- {line}' for line in lines)


# ----------------------------------------------------------------------------- tables
def write_controls(found: dict[str, Stored | None]) -> str:
    """Return how often the block has each verdict against each kind of row."""
    rows = []
    for kind, names in CONTROLS.items():
        verdicts = []
        ran_in = 0
        for stored in found.values():
            own = [] if stored is None else stored.verdicts_that_ran(*names)
            verdicts += own
            ran_in += bool(own)
        counts = [str(verdicts.count(verdict)) for verdict in VERDICTS]
        rows.append([kind, str(ran_in), *counts])
    titles = ['the block against', 'studies', *map(_words, VERDICTS)]
    return _markdown(titles, rows)


def write_primary(found: dict[str, Stored | None]) -> str:
    """Return the table of all primary comparisons."""
    p = correct_all(found)
    titles = [
        'study',
        'test',
        'block',
        'baseline',
        'difference',
        'p',
        'p of 24',
        'verdict',
    ]
    rows = []
    for study in STUDIES:
        stored = found[study.name]
        if stored is None:
            rows.append([study.title, 'not run', *[''] * (len(titles) - 2)])
            continue
        one = stored.primary
        corrected = p[study.name]
        verdict = _words(final_verdict(stored, corrected))
        if helps(stored, corrected):
            verdict += ': helps'
        rows.append(
            [
                study.title,
                stored.counts,
                _score(stored.row(study.block)),
                _score(stored.row(study.baseline)),
                _difference(one),
                format_p_value(_number(one['p'])),
                format_p_value(corrected),
                verdict,
            ]
        )
    return _markdown(titles, rows)


def write_studies(found: dict[str, Stored | None], stage: int) -> str:
    """Return the tables of the studies of a stage."""
    p = correct_all(found)
    parts = []
    for study in STUDIES:
        if study.stage != stage:
            continue
        stored = found[study.name]
        if stored is None:
            parts.append(f'**{study.title}**: not run.')
        else:
            parts += write_study(stored, p[study.name])
    return '\n\n'.join(parts)


def write_study(stored: Stored, p: float) -> list[str]:
    """Return the paragraphs of a study: its numbers, its table, and what stands below it.

    Arguments of :func:`final_verdict`.
    """
    study = stored.study
    run = f'{stored.run["date"]}, commit {stored.run["commit"]}'
    head = (
        f'**{study.title}** (`{study.name}`): {stored.counts}; {run}. {stored.sentence}'
    )
    if is_undone(stored, p):
        head += (
            f" That is by the study's correction alone: after the one for all {len(STUDIES)} "
            f'comparisons it is open (p {format_p_value(p)}).'
        )
    titles = [
        'row',
        'accuracy',
        f'{study.block} minus it',
        "Holm's p",
        'verdict',
        'value',
    ]
    rows = []
    collapsed = []
    for row in stored.rows:
        cells = ['', '', '']
        if row.comparison is not None:
            one = row.comparison
            p = format_p_value(_number(one['corrected_p']))
            cells = [_difference(one), p, _verdict(one)]
        rows.append([row.name, _score(row), *cells, row.values])
        if row.at_chance:
            collapsed.append(f'{row.at_chance} of {row.name}')
    parts = [head, _markdown(titles, rows)]
    if collapsed:
        parts.append(f'At chance level, and counted: trainings {", ".join(collapsed)}.')
    return parts


def _score(row: Row) -> str:
    """Return a score with half of its interval, if it has one."""
    return (
        'not run'
        if row.score is None
        else _METRIC.score(row.score.mean, row.score.half)
    )


def _difference(one: pd.Series) -> str:
    """Return a difference with the interval that is judged."""
    if one['difference'] == '':
        return '-'
    low, high = _number(one['low']), _number(one['high'])
    difference = f'{_number(one["difference"]):+.1f}'
    return difference if np.isnan(low) else f'{difference} ({low:+.1f} to {high:+.1f})'


def _verdict(one: pd.Series) -> str:
    """Return a verdict with the reason why it is open."""
    reason = f' ({one["reason"]})' if one['reason'] else ''
    return _words(one['verdict']) + reason


def _words(verdict: str) -> str:
    return 'within a point' if verdict == 'equal' else verdict


def _are(number: int) -> str:
    return '1 is' if number == 1 else f'{number} are'


def _number(cell: object) -> float:
    """Return a number of a CSV file, whose empty cell stands for NaN."""
    return float('nan') if cell == '' else float(str(cell))


def _markdown(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [titles, ['---'] * len(titles), *rows]
    return '\n'.join(f'| {" | ".join(cells)} |' for cells in lines)


# ------------------------------------------------------------------------------ pages
def with_evidence(page: str, found: dict[str, Stored | None]) -> str:
    """Return a page with what stands between its markers made anew.

    Args:
        page (str): Markdown.
        found (dict): The studies.
    """
    parts = {
        'the four lines': partial(write_summary, found, 'docs/results/evidence.md'),
        'summary': partial(write_summary, found, ''),
        'predictions': partial(write_predictions, found),
        'primary comparisons': partial(write_primary, found),
        'controls': partial(write_controls, found),
    }
    for stage in STAGES:
        parts[f'stage {stage}'] = partial(write_studies, found, stage)
    for name, make in parts.items():
        start, end = START.format(name), END.format(name)
        before, _, rest = page.partition(start)
        _, is_found, after = rest.partition(end)
        if is_found:
            page = f'{before}{start}\n\n{make()}\n\n{end}{after}'
    return page


def write_pages(folder: Path = EVIDENCE, check: bool = False) -> list[Path]:
    """Write the pages from stored studies; return those that were not as they are now.

    Args:
        folder (Path): Of the studies.
        check (bool): Write nothing.
    """
    found = read_all(folder)
    differ = []
    for path in PAGES:
        before = path.read_text(encoding='utf-8')
        after = with_evidence(before, found)
        if after != before:
            differ.append(path)
            if not check:
                path.write_text(after, encoding='utf-8')
    return differ


def main(argv: Sequence[str] | None = None) -> None:
    """Write the pages, or say which differ."""
    flags = {'--check': dict(action='store_true', help='write nothing')}
    args: argparse.Namespace = build_parser(__doc__, flags).parse_args(argv)
    differ = write_pages(check=args.check)
    if args.check and differ:
        names = ', '.join(str(path.relative_to(ROOT)) for path in differ)
        sys.exit(f'{names}: run python tools/analysis/evidence_page.py')


if __name__ == '__main__':
    main()
