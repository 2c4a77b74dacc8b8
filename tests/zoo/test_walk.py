"""Every shipped file that names a model is built, trained and tested, as it is typed.

The tests of each task and host train the configs of its folder. Here are the rest: what
tests what others train, and the variants of the grids, whose overrides name more
language models. What these runs replace is listed in :mod:`tests.helpers.replaced`.

One config of each kind runs in ``make test``; all of them have the marker ``walk``.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
from mmengine.config import Config

from lm4ve.blocks import LLMBlock
from lm4ve.runner.command_line import build_runner
from lm4ve.runner.config import read_config
from lm4ve.study.trainings.grid import Grid, Variant
from lm4ve.study.trainings.grid_files import load_grid
from tests.helpers.config_runs import WeightsOfFiles, train
from tests.helpers.shrink import Shrinker, shrinker_of
from tests.helpers.tasks import (
    CONFIG_FILES,
    CONFIG_ROOTS,
    CONFIGS,
    FOLDERS,
    configs_of,
)

GRIDS = sorted((CONFIGS / 'ablations').glob('*.py'))
ROBUSTNESS = [name for name in configs_of('image') if name.startswith('robustness/')]
#: Encoders of studies with `lm4ve try`, which lie beside the grids.
ENCODERS = sorted(p.name for p in (CONFIGS / 'ablations/_base_').glob('vit_*.py'))
#: One of each kind, for `make test`.
QUICK = {
    'robustness/vit-t_llama_imagenet-a.py',
    'vit_glyphs.py',
}


def walk(names: list[str]) -> list:
    """Return parameters that have the marker ``walk``, but for the quick ones."""
    return [
        pytest.param(name, id=name, marks=() if name in QUICK else pytest.mark.walk)
        for name in names
    ]


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    """A working folder a task, with the files that its configs name."""
    return {task: tmp_path_factory.mktemp(task) for task in FOLDERS}


def task_of(config: Path) -> str:
    """Return the task of a config file."""
    for task, folder in FOLDERS.items():
        if config.is_relative_to(folder):
            return task
    raise AssertionError(f'{config} belongs to no task')


@pytest.fixture
def shrinker_for(folders, monkeypatch):
    """``shrinker_for(task)``: works in the task's folder."""

    def enter(task: str):
        found = shrinker_of(task, folders[task])
        found.enter(monkeypatch)
        return found

    return enter


@pytest.mark.parametrize('name', walk(ROBUSTNESS))
def test_robustness_config_tests_what_its_training_saves(name, shrinker_for, tmp_path):
    shrinker = shrinker_for('image')
    runner = build_runner(shrinker.load(name, tmp_path))
    blocks = [m for m in runner.model.modules() if isinstance(m, LLMBlock)]
    assert bool(blocks) == ('llama' in name)
    assert 0 <= runner.test()['accuracy/top1'] <= 100


@pytest.mark.walk
@pytest.mark.parametrize('path', GRIDS, ids=lambda p: p.stem)
def test_variants_of_a_grid_train_and_test(path, shrinker_for, tmp_path, subtests):
    grid = load_grid(path)
    for i, variant in enumerate(grid.variants):
        with subtests.test(variant=variant.name):
            run_variant(grid, variant, shrinker_for, tmp_path / str(i))


def test_variant_of_a_grid_reads_its_language_model_by_a_hub_id(shrinker_for, tmp_path):
    grid = load_grid(CONFIGS / 'ablations/vit-s_in1k_llms.py')
    (variant,) = (v for v in grid.variants if v.name == 'OPT-350M')
    run_variant(grid, variant, shrinker_for, tmp_path)


def run_variant(
    grid: Grid, variant: Variant, shrinker_for: Callable, work_dir: Path
) -> None:
    """Run one trial of a variant, as `lm4ve ablate` configures it."""
    value = grid.tune and grid.tune.values[0]
    options = grid.options(variant, 'test', grid.seeds[0], value)
    task = task_of(variant.config)
    shrinker = shrinker_for(task)
    name = str(variant.config.relative_to(FOLDERS[task]))
    cfg = shrinker.load(name, work_dir, options=options)
    assert grid.metric in train_and_test(shrinker, cfg)


def train_and_test(shrinker: Shrinker, cfg: Config) -> dict:
    """Train an epoch from the weights that a config names; return what the test measures."""
    runner = build_runner(cfg)
    runner.register_hook(WeightsOfFiles(shrinker.weights))
    train(runner)
    return runner.test()


@pytest.mark.parametrize('name', walk(ENCODERS))
def test_encoder_of_a_study_trains_and_tests(name, shrinker_for, tmp_path):
    shrinker = shrinker_for('image')
    text = f"_base_ = 'lm4ve::ablations/_base_/{name}'"
    train_and_test(shrinker, shrinker.load_text(text, tmp_path))


def inherited(path: Path) -> set[Path]:
    """Return a config file, and all that it inherits."""
    found = {path.resolve()}
    for base in Config._get_base_files(str(path)):
        base_path, scope = Config._get_cfg_path(base, str(path))
        if scope is None:
            found |= inherited(Path(base_path))
    return found


def test_no_file_of_a_config_is_left_out_of_the_walk():
    walked = {*GRIDS, *CONFIG_FILES}
    for grid in GRIDS:
        content = read_config(grid, set_scope=False)
        for settings in content.variants.values():
            walked.add(grid.parent / settings.get('config', content.get('base')))
    walked |= {CONFIGS / 'ablations/_base_' / name for name in ENCODERS}
    seen = set().union(*map(inherited, walked))
    files = {p.resolve() for root in CONFIG_ROOTS for p in root.rglob('*.py')}
    left_out = files - seen
    # Pieces that name no model, for configs of one's own.
    assert [p.name for p in left_out] == ['released_rates.py']
