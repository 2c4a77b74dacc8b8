"""Grids: what they expand to, each mistake in one message, and splits that tuning may see."""

import ast
from operator import attrgetter

import numpy as np
import pytest

from lm4ve import tasks
from lm4ve.errors import UserError
from lm4ve.study.trainings.grid_files import load_grid
from lm4ve.study.trainings.identity import identity
from tests.helpers.grids.toy import GRID, TUNE, write_grid
from tests.helpers.tasks import ROOT

GRIDS = sorted((ROOT / 'configs/ablations').glob('*.py'))


def options_of(job) -> dict:
    """Return the overrides of a training."""
    return ast.literal_eval(job.spec['options'])


def same_value(grid, value) -> dict:
    """Return one value for all variants and seeds."""
    return {(v.name, seed): value for v in grid.variants for seed in grid.seeds}


@pytest.mark.parametrize('path', GRIDS, ids=lambda p: p.stem)
def test_every_grid_of_ours_expands(path):
    pytest.importorskip('mmpretrain')
    pytest.importorskip('mmaction')
    grid = load_grid(path)
    assert grid.name == path.stem
    value = grid.tune.values[0] if grid.tune else None
    main = grid.tests(same_value(grid, value))
    tuning = grid.tuning()
    assert len(main) == len(grid.variants) * len(grid.seeds)
    # Each variant and seed is a training of its own.
    ids = {job.key for job in main + tuning}
    assert len(ids) == len(main) + len(tuning)
    for job in main:
        options = options_of(job)
        assert options['randomness.seed'] == job.seed
        if options.get('model.neck.block.pretrained') is False:
            assert options['model.neck.block.seed'] == job.seed
    for job in tuning:
        # Never by the test split.
        options = options_of(job)
        split = options.get('test_dataloader.dataset.split')
        part = options.get('test_dataloader.dataset.part')
        assert (split, part) in [('val', None), ('train', 'val')]


def test_ids_say_all_that_a_result_depends_on(tmp_path):
    def ids(text):
        grid = load_grid(write_grid(tmp_path, text))
        main = grid.tests(same_value(grid, 0.1))
        return [job.key for job in grid.tuning() + main]

    text = GRID + TUNE
    first = ids(text)
    assert first == ids(text)
    # Other names, other order of keys, other helpers: the same trainings.
    assert first == ids(text.replace("'one'", "'1'") + '_helper = 3\n')
    changed = ids(text.replace("'model.width': 1", "'model.width': 3"))
    # Tuning comes first: two values of each variant; then two seeds of each.
    same = [a == b for a, b in zip(first, changed, strict=True)]
    assert same == [False, False, True, True, False, False, True, True]


def test_a_schedule_that_follows_the_epochs_has_another_id(tmp_path):
    text = "train_cfg = dict(max_epochs=2)\nparam_scheduler = [dict(type='LinearLR', end=2)]\n"
    (tmp_path / 'config.py').write_text(text)
    path = tmp_path / 'config.py'
    follows = {'train_cfg.max_epochs': 3}
    stays = {'train_cfg.max_epochs': 3, 'param_scheduler.0.end': 2}
    assert identity(path, follows) != identity(path, stays)


def test_seeds_and_tuned_values_reach_the_options(tmp_path):
    text = GRID.replace(
        "{'model.width': 1}", "{'model.width': '{seed}', 'work_dir': 'at-{seed}'}"
    )
    text = text.replace('seeds = 2', 'seeds = (3, 5)') + TUNE
    grid = load_grid(write_grid(tmp_path, text))
    (second,) = grid.tests({('one', 5): 0.01})
    assert options_of(second) == {
        'model.width': 5,
        'work_dir': 'at-5',
        'randomness.seed': 5,
        'optim_wrapper.optimizer.lr': 0.01,
    }
    tuning = grid.tuning()
    assert [job.value for job in tuning] == [0.01, 0.1, 0.01, 0.1]
    assert options_of(tuning[0])['train_dataloader.dataset.part'] == 'fit'
    # What is not tuned yet has no training that is compared.
    assert {job.variant for job in grid.tests({('two', 3): 0.1})} == {'two'}
    # The shared tuning has a seed of its own, and so has each draw.
    assert {job.seed for job in tuning} == {1000}
    draws = grid.draws(dict(one=[0.01, 0.1], two=[0.1]))
    assert [(job.value, job.seed) for job in draws] == [
        (0.01, 3),
        (0.01, 5),
        (0.1, 3),
        (0.1, 5),
    ]
    assert options_of(draws[0])['train_dataloader.dataset.part'] == 'fit'


MISTAKES = {
    'no such field': (
        'seeds = 2',
        'seeds = 2\nsead = 1',
        "sead is not a known.*'seeds'",
    ),
    'no reference': ("reference = 'two'", '', 'subject or reference has to be named'),
    'a subject too': (
        "reference = 'two'",
        "reference = 'two'\nsubject = 'one'",
        'subject or reference .* not both',
    ),
    'no variants': (
        'variants = ',
        'variant = ',
        "it is no grid: it has no dict 'variants'",
    ),
    'misspelt variant': (
        "'two': dict(),",
        "'two': dict(confg='a.py'),",
        "Did you mean 'config'",
    ),
    'text for seeds': ('seeds = 2', "seeds = 'two'", "seeds='two' must be of type int"),
    'no margin': ('margin = 0.05', '', 'margin is missing'),
    'reference': (
        "reference = 'two'",
        "reference = '2'",
        "reference='2' must be one of one, two",
    ),
    'seeds twice': ('seeds = 2', 'seeds = (1, 1)', 'seeds=1 must be at least 2'),
    'variants twice': (
        "'two': dict(),",
        "'two': dict(), 'one': dict()",
        "has 'one' twice",
    ),
    'top-level option': ("'model.width'", "'modl.width'", "variant 'one'.*modl"),
    'one value': ('values=(.01, .1)', 'values=(.1, )', 'values=1 must be at least 2'),
    'tuning by the test set': (
        "options={'train_dataloader.dataset.part': 'fit',\n"
        "             'test_dataloader.dataset.part': 'val'}",
        '',
        'select by the test',
    ),
}


@pytest.mark.parametrize(
    'old, new, message', list(MISTAKES.values()), ids=list(MISTAKES)
)
def test_a_mistake_is_an_error_naming_the_grid(tmp_path, old, new, message):
    text = GRID + TUNE
    assert text.count(old) == 1
    path = write_grid(tmp_path, text.replace(old, new))
    with pytest.raises(UserError, match=message) as e:
        load_grid(path)
    assert str(path) in str(e.value)


@pytest.mark.parametrize(
    'name, text', [('no.py', None), ('a.md', '# hello'), ('b.py', 'a b c')]
)
def test_file_that_is_no_grid_is_named(name, text, tmp_path):
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    defects = 'does not exist|cannot be read|is no Python file'
    with pytest.raises(UserError, match=rf'{name}.* ({defects})'):
        load_grid(path)


def test_options_may_import_the_classes_that_they_name(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / 'imported_late.py').write_text(
        'from tests.helpers.grids.toy import MODELS, ToyModel\n\n\n'
        '@MODELS.register_module()\nclass Late(ToyModel):\n'
        '    def __init__(self, height: int) -> None:\n        super().__init__(height)\n'
    )
    late = "{'model': dict(_delete_=True, type='Late', height=1)}"
    text = GRID.replace("{'model.width': 1}", late)
    text += "common = {'custom_imports.imports': ['imported_late']}\n"
    assert load_grid(write_grid(tmp_path, text))


#: Data set -> its fields, the key of an input, and the sizes of fit and val.
SETS = {
    'image.DigitsDataset': ({}, 'img', (1005, 252)),
    'pointcloud.PrimitivesDataset': (
        dict(per_class=5, num_points=16),
        'points',
        (40, 10),
    ),
}


def read_samples(name: str, split: str, split_seed: int | None = None) -> list:
    """Return label and content of each sample of a data set in :data:`SETS`."""
    fields, content, _ = SETS[name]
    dataset = attrgetter(name)(tasks)(split=split, split_seed=split_seed, **fields)
    found = []
    for i in range(len(dataset)):
        sample = dataset[i]
        found.append((sample['gt_label'], sample[content].tobytes()))
    return found


@pytest.mark.parametrize('split_seed', [None, 3])
@pytest.mark.parametrize('name', SETS)
def test_fit_and_val_are_the_training_split(name, split_seed, tmp_path, monkeypatch):
    monkeypatch.setenv('LM4VE_CACHE', str(tmp_path))

    def count_labels(part):
        return np.bincount([label for label, _ in part])

    train = read_samples(name, 'train')
    fit = read_samples(name, 'fit', split_seed)
    val = read_samples(name, 'val', split_seed)
    assert sorted(fit + val) == sorted(train)
    assert np.abs(count_labels(val) - 0.2 * count_labels(train)).max() < 1
    assert val == read_samples(name, 'val', split_seed)
    if split_seed is None:
        assert (len(fit), len(val)) == SETS[name][-1]
    else:
        assert sorted(val) != sorted(read_samples(name, 'val', split_seed + 1))
        assert sorted(val) != sorted(read_samples(name, 'val'))


def test_traffic_parts_share_no_simulation(tmp_path, monkeypatch):
    pytest.importorskip('pyarrow')
    from lm4ve.demo_data import traffic
    from lm4ve.tasks.motion.datasets import traffic_files

    monkeypatch.setattr(traffic, 'PER_SIMULATION', 2)

    def scenes(**kwargs):
        dataset = traffic_files.TrafficDataset(
            'train', root=str(tmp_path / 'd'), counts=dict(train=6, val=2), **kwargs
        )
        return [dataset.scene(i).scene_id for i in range(len(dataset))]

    fit = scenes(part='fit')
    val = scenes(part='val')
    # Three simulations of two scenes each, in their order: the last is held out.
    assert fit + val == scenes()
    assert len(val) == 2
