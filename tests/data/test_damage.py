"""One rule for damage in every data set that reads files: replaced in training, never scored.

What storage does not give is no damage, in none of them.
"""

import inspect
import itertools
import re

import pytest

pytest.importorskip('mmpretrain')
pytest.importorskip('mmaction')
pytest.importorskip('mmseg')
pytest.importorskip('monai')
pytest.importorskip('medmnist')
pytest.importorskip('h5py')

from mmengine.config import Config
from mmengine.registry import init_default_scope

from lm4ve.data.integrity import IntegrityMixin
from lm4ve.errors import StorageError, UserError
from lm4ve.registry import DATASETS, PROVIDERS
from lm4ve.runner.scored_data import SampleCounts, count_samples, set_test_mode
from lm4ve.zoo import PACKAGES
from tests.helpers.data.damaged import FILES, NO_FILES, ONE_FILE, TRAINING_ONLY

MATRIX = list(itertools.product(FILES, ('cut', 'empty', 'missing')))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('LM4VE_CACHE', str(tmp_path / 'cache'))


@pytest.fixture(autouse=True)
def scope(request):
    name = (
        request.node.callspec.params['name']
        if hasattr(request.node, 'callspec')
        else ''
    )
    init_default_scope(
        'mmaction' if 'Video' in name or 'Repeat' in name else 'mmpretrain'
    )
    yield
    init_default_scope('mmengine')


def write(name, root):
    """Write the data set of a class; return its sample."""
    return (FILES | ONE_FILE)[name](root / 'data')


def build(name, sample, **changes):
    # MMEngine collects garbage when it serializes: slow beside torch.
    config = dict(sample.config, type=f'lm4ve.{name}', serialize_data=False)
    # A few classes are for tests by default.
    changes.setdefault('test_mode', False)
    return DATASETS.build(config | changes)


def build_scored(name, sample, **changes):
    """Build it as a validation set, whose config does not say that it is one."""
    dataset = dict(sample.config, type=f'lm4ve.{name}', **changes)
    config = Config(dict(val_dataloader=dict(dataset=dataset)))
    set_test_mode(config)
    return DATASETS.build(config.val_dataloader.dataset)


def test_every_registered_data_set_is_in_these_tables():
    # A path that is in neither table has no test of what becomes of damage.
    for name in PROVIDERS:
        DATASETS.get(name)
    own = {
        name
        for name, data_class in DATASETS.module_dict.items()
        if data_class.__module__.partition('.')[0] in PACKAGES
    }
    assert own == {*FILES, *ONE_FILE, *NO_FILES}
    for name in (*FILES, *ONE_FILE):
        data_class = DATASETS.get(name)
        assert issubclass(data_class, IntegrityMixin), name
        # None overrides what the policy decides.
        assert data_class.refuses is IntegrityMixin.refuses
        parameters = inspect.signature(data_class).parameters.values()
        assert any(p.kind is p.VAR_KEYWORD for p in parameters), name


@pytest.mark.parametrize('name, kind', MATRIX)
def test_damage_is_replaced_in_training_and_named_in_what_is_scored(
    name, kind, tmp_path
):
    sample = write(name, tmp_path)
    whole = len(build(name, sample))
    sample.damage(kind)
    # Shards and questions about missing files show it when they are loaded.
    data = build(name, sample)
    assert all(data[i] is not None for i in range(len(data)))
    assert len(data.corrupt_files) + data.num_left_out >= 1
    assert whole == len(data) + data.num_left_out
    if name in TRAINING_ONLY:
        with pytest.raises(UserError, match='only trains'):
            build_scored(name, sample)
        return
    # A sample of a shard has no file, and a scene several.
    match = re.escape(sample.file.stem) if sample.place is None else 'corrupt'
    match = match.removesuffix('_aligned_vert')
    for mode in (dict(test_mode=True), dict(test_mode=True, on_corrupt='refuse')):
        with pytest.raises(UserError, match=match):
            build(name, sample, **mode)
    with pytest.raises(UserError, match=match):
        build_scored(name, sample)
    scored = build_scored(name, sample, on_corrupt='skip')
    counts = count_samples(scored)
    assert counts.scored == len(scored) < counts.total
    assert all(scored[i] is not None for i in range(len(scored)))
    if DATASETS.get(name).__name__ != 'CaptionFiles' and 'Karpathy' not in name:
        assert counts.total == whole


@pytest.mark.parametrize('name', [*FILES, *ONE_FILE])
def test_what_storage_does_not_give_is_no_damage(name, tmp_path):
    sample = write(name, tmp_path)
    sample.damage('storage')
    modes = [dict()]
    if name not in TRAINING_ONLY:
        modes += [dict(test_mode=True), dict(test_mode=True, on_corrupt='skip')]
    for mode in modes:
        with pytest.raises(StorageError, match='ELOOP'):
            data = build(name, sample, **mode)
            for i in range(len(data)):
                data[i]


@pytest.mark.parametrize('name', ONE_FILE)
@pytest.mark.parametrize('kind', ['cut', 'empty', 'missing'])
def test_one_damaged_file_of_all_samples_is_named_before_training(name, kind, tmp_path):
    sample = write(name, tmp_path)
    assert len(build(name, sample, verify=True, on_corrupt='skip', test_mode=True)) > 0
    sample.damage(kind)
    for test_mode in (False, True):
        with pytest.raises(UserError, match=sample.file.name):
            build(name, sample, test_mode=test_mode)


@pytest.mark.parametrize('name', ['ImageNetShards', 'VideoShards', 'MotionDataset'])
def test_what_a_tool_has_left_out_counts_where_it_is_scored(name, tmp_path):
    sample = (FILES | ONE_FILE)[name](tmp_path / 'data', damaged=1)
    data = build(name, sample)
    with pytest.raises(UserError, match=f'1 of {len(data) + 1} entries'):
        build_scored(name, sample)
    scored = build_scored(name, sample, on_corrupt='skip')
    assert count_samples(scored) == SampleCounts(len(data), len(data) + 1)


def test_test_mode_reaches_every_data_set_within_wrappers(tmp_path):
    part = dict(type='lm4ve.CheckedImageFolder', data_root='x')
    joined = dict(type='ConcatDataset', datasets=[dict(part), dict(part)])
    folded = dict(type='KFoldDataset', dataset=dict(part))
    repeated = dict(type='RepeatDataset', dataset=joined, times=2)
    config = Config(
        dict(
            default_scope='mmpretrain',
            train_dataloader=dict(dataset=dict(part)),
            val_dataloader=dict(dataset=repeated),
            test_dataloader=dict(dataset=folded),
        )
    )
    fields = set_test_mode(config)
    assert fields == [
        'val_dataloader.dataset.dataset.datasets.0',
        'val_dataloader.dataset.dataset.datasets.1',
        'test_dataloader.dataset',
        'test_dataloader.dataset.dataset',
    ]
    assert config.test_dataloader.dataset.test_mode
    assert 'test_mode' not in config.train_dataloader.dataset
    for inner in config.val_dataloader.dataset.dataset.datasets:
        assert inner.test_mode
    assert 'test_mode' not in config.val_dataloader.dataset
    for value in (False, 0):
        config.val_dataloader.dataset.dataset.datasets[1].test_mode = value
        with pytest.raises(UserError, match=rf'datasets\.1\.test_mode={value}'):
            set_test_mode(config)
