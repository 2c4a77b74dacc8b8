"""The grids of published tables: their scores fit the tests, and tiny versions run."""

import functools
import json
from pathlib import Path

import pandas as pd
import pytest

from lm4ve.errors import UserError
from lm4ve.study.run_job import run_job
from lm4ve.study.store import Store
from lm4ve.study.trainings.contents import published_rows
from lm4ve.study.trainings.grid import Grid, Published
from lm4ve.study.trainings.grid_files import load_grid
from tests.helpers.golden import FOLDER as GOLDEN
from tests.helpers.grids.command import run
from tests.helpers.grids.toy import GRID, write_grid
from tests.helpers.shrink import Shrinker, shrinker_of
from tests.helpers.tasks import FOLDERS, ROOT

PAGE = (ROOT / 'docs/guides/reproduce.md').read_text(encoding='utf-8')


def files_with_scores() -> list[Path]:
    """Return the grids with published scores; they are not read, which takes a second."""
    files = []
    for path in sorted((ROOT / 'configs/ablations').glob('*.py')):
        if 'published = ' in path.read_text(encoding='utf-8'):
            files.append(path)
    return files


@pytest.fixture
def grid(request) -> Grid:
    return read_grid(request.param)


@functools.cache
def read_grid(path: Path) -> Grid:
    return load_grid(path)


def task_of(config: Path) -> str:
    (task,) = [task for task in FOLDERS if FOLDERS[task] == config.parent]
    return task


each_grid = pytest.mark.parametrize(
    'grid', files_with_scores(), ids=lambda path: path.stem, indirect=True
)
PUBLISHED = Published(
    'somewhere', {'one': {'toy/error': 0.25, 'toy/other': 2}, 'two': {'toy/error': 1.5}}
)


def test_rows_have_a_published_score_beside_the_mean_over_seeds():
    columns = {'variant': 'one', 'toy/error': [1.0, 2.0], 'toy/other': 5.0}
    one, two = published_rows(PUBLISHED, pd.DataFrame(columns))
    assert one == {
        'variant': 'one',
        'n': '2',
        'toy/error published': '0.25',
        'toy/error here': '1.5',
        'toy/other published': '2',
        'toy/other here': '5',
    }
    assert list(two.values()) == ['two', '0', '1.5', 'not run', '-', 'not run']


def test_a_published_metric_that_the_test_does_not_report_is_an_error():
    results = pd.DataFrame({'variant': ['one'], 'toy/error': 1.0})
    with pytest.raises(UserError, match='toy/other'):
        published_rows(PUBLISHED, results)


@pytest.mark.parametrize(
    'scores, message',
    [
        ("{'three': {'toy/error': 1}}", 'three'),
        ("{'one': {'toy/error': '1 %'}}", 'toy/error'),
        ("{'one': 1}", "scores\\['one'\\]"),
    ],
)
def test_published_scores_of_no_variant_or_no_number_are_refused(
    scores, message, tmp_path
):
    text = f"{GRID}\npublished = dict(source='somewhere', scores={scores})\n"
    with pytest.raises(UserError, match=message):
        load_grid(write_grid(tmp_path, text))


@each_grid
def test_published_metrics_are_what_the_tests_report(grid):
    for variant in grid.variants:
        if variant.name not in grid.published.scores:
            continue
        task = task_of(variant.config)
        stored = json.loads((GOLDEN / f'{task}.json').read_text(encoding='utf-8'))
        reported = stored[variant.config.name]['metrics']
        scores = grid.published.scores[variant.name]
        assert scores.keys() <= reported.keys()


@each_grid
def test_the_page_has_a_row_of_each_grid(grid):
    size = f'{len(grid.variants)} x {len(grid.seeds)}'
    assert f'| `{grid.name}` | {size} |' in PAGE


@pytest.mark.walk
@each_grid
def test_a_tiny_version_runs_to_its_table(grid, tmp_path, monkeypatch, capsys):
    """Each variant's config trains and is tested; the report has both scores of each."""
    shrinker = shrinker_of(task_of(grid.variants[0].config), tmp_path / 'data')
    shrinker.enter(monkeypatch)
    path = write_tiny_grid(grid, shrinker, tmp_path)
    out = tmp_path / 'out'
    store = Store(out / 'jobs')
    tiny = load_grid(path)
    for job in tiny.tests({}):
        store.prepare(job)
        run_job(store.folder_of(job))
    assert run(path, out) == 0
    table = (out / tiny.name / 'published.md').read_text(encoding='utf-8')
    rows = table.splitlines()[2 : 2 + len(grid.published.scores)]
    for row, (name, scores) in zip(rows, grid.published.scores.items(), strict=True):
        assert f'| {name} | 1 |' in row
        for score in scores.values():
            assert f'| {score:g} |' in row
    assert 'not run' not in table


def write_tiny_grid(grid: Grid, shrinker: Shrinker, folder: Path) -> Path:
    """Write a grid of shrunk configs with the scores of ``grid``."""
    variants = {}
    for number, variant in enumerate(grid.variants):
        options = grid.options(variant, 'test', 0, None)
        name = str(variant.config.relative_to(FOLDERS[shrinker.task]))
        config = folder / f'{number}.py'
        shrinker.load(name, folder / 'work', options=options).dump(config)
        variants[variant.name] = dict(config=str(config))
    fields = dict(
        name='tiny',
        metric=grid.metric,
        margin=grid.margin,
        greater_is_better=grid.greater_is_better,
        seeds=[0],
        reference=grid.subject or grid.reference,
        variants=variants,
        published=dict(source='a page', scores=grid.published.scores),
    )
    path = folder / 'grid.py'
    lines = [f'{name} = {value!r}\n' for name, value in fields.items()]
    path.write_text(''.join(lines))
    return path
