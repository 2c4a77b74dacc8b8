"""Files that users keep from before the redesign still work, with the same results.

``tests/data/before_redesign`` holds what the code before it wrote: checkpoints of
short trainings of every task, a self-contained release, caches, and the outputs of
those models (its README says how). The tests load each file as a user would and
compare with these outputs. Configs name their types, and never a module of ours
that may move, except for the imports that motion configs had.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS
from mmengine.runner import Runner

import lm4ve  # noqa: F401

for host in ('mmpretrain', 'mmaction', 'open3d'):
    pytest.importorskip(host)

DATA = Path(__file__).parents[1] / 'data/before_redesign'
#: Where the configs expect it, seen from the folder of the project.
PLACE = 'tests/data/before_redesign'
CASES = (
    'vit_frozen',
    'vit_norms',
    'vit_trained',
    'vit_mlp',
    'vit_insert',
    'vit_ema',
    'release/vit_ema',
    'videomae',
    'pointbert',
    'pointmae',
    'vectornet',
    'mmtransformer',
)
#: Their ``ema_state_dict``: the average, or the raw weights (MMEngine's hook).
WITH_EMA = ('vit_ema', 'vit_trained')
TOLERANCE = dict(rtol=1e-6, atol=1e-6)


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    """A copy in the place that the configs name, so that no test writes into it."""
    shutil.copytree(DATA, tmp_path / PLACE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('LM4VE_CACHE', str(tmp_path / 'cache'))
    before = files(tmp_path / PLACE)
    yield tmp_path
    # A cache that was not recognized would have been made anew beside the old one.
    assert files(tmp_path / PLACE) == before


def files(folder: Path) -> dict:
    return {p.relative_to(folder): p.stat().st_mtime_ns for p in folder.rglob('*') if p.is_file()}


def read(case: str) -> dict:
    return torch.load(f'{PLACE}/{case}.pth', weights_only=True, map_location='cpu')


def runner_of(case: str, **changes) -> Runner:
    """Return the runner that the tools would build; its model is not loaded yet."""
    cfg = Config.fromfile(f'{PLACE}/{case}.py')
    if case == 'mmtransformer':  # as the message about such a checkpoint says
        cfg.model.encoder.released = cfg.model.decoder.released = False
    # Runners of one second would share a message hub.
    cfg.update(work_dir='work', log_level='WARNING', experiment_name=Path.cwd().name, **changes)
    return Runner.from_cfg(cfg)


def images(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, 3, 8, 8, generator=generator) * 4 - 2


def batch_of(case: str, runner: Runner) -> dict:
    """Return a batch as the data loader gives it: stored, or drawn from a seed."""
    if 'vit' in case:
        from mmpretrain.structures import DataSample

        samples = [DataSample().set_gt_label(i) for i in range(4)]
        return dict(inputs=images(4), data_samples=samples)
    if case == 'videomae':
        from mmaction.structures import ActionDataSample

        generator = torch.Generator().manual_seed(2)
        clips = torch.randint(0, 256, (2, 1, 3, 4, 32, 32), generator=generator)
        samples = [ActionDataSample().set_gt_label(i) for i in range(2)]
        return dict(inputs=list(clips.to(torch.uint8)), data_samples=samples)
    return next(iter(runner.test_dataloader))


def doubled(value):
    if isinstance(value, dict):
        return {k: doubled(v) for k, v in value.items()}
    return value.double() if value.is_floating_point() else value


def outputs(case: str, runner: Runner) -> dict[str, np.ndarray]:
    """Return what the model computes of the batch, name -> array.

    In float64, so that other processors round to the same six digits.
    """
    model = runner.model.double().eval()
    batch = batch_of(case, runner)
    if 'vit' not in case:
        batch = model.data_preprocessor(batch, training=False)
    batch['inputs'] = doubled(batch['inputs'])
    with torch.no_grad():
        if case == 'videomae':
            raw = model(**batch, mode='tensor')[0]
            found = {'features': raw}
        else:
            raw = model(**batch, mode='tensor')
            found = dict(enumerate(raw)) if isinstance(raw, tuple) else {'logits': raw}
        found |= model(**batch, mode='loss')
        predicted = model(**batch, mode='predict')
    for i, sample in enumerate(predicted[:1]):
        if isinstance(sample, dict):  # motion
            found |= {f'{k}_{i}': sample[k] for k in ('trajectories', 'probabilities')}
        else:
            score = 'pred_scores' if hasattr(sample, 'pred_scores') else 'pred_score'
            found[f'{score}_{i}'] = sample.get(score)
    return {str(k): np.asarray(v) for k, v in found.items()}


def stored(name: str) -> dict[str, np.ndarray]:
    with np.load(f'{PLACE}/outputs.npz') as file:
        start = f'{name}:'
        return {k[len(start) :]: file[k] for k in file if k.startswith(start)}


def assert_as_before(found: dict, name: str) -> None:
    expected = stored(name)
    assert found.keys() == expected.keys()
    assert len(expected) > 2
    for key, value in found.items():
        assert value.shape == expected[key].shape, key
        np.testing.assert_allclose(value, expected[key], **TOLERANCE, err_msg=key)


@pytest.mark.parametrize('case', CASES)
def test_outputs(case):
    """The weights load without code being run, all of them, and say the same."""
    runner = runner_of(case)
    runner.model.load_state_dict(read(case)['state_dict'], strict=True)
    assert_as_before(outputs(case, runner), case)


@pytest.mark.parametrize('case', [c for c in CASES if c != 'videomae'])
def test_scores(case):
    """The runner loads the file with its hooks and reaches the same metrics."""
    expected = json.loads((DATA / 'scores.json').read_text())[case]
    scores = runner_of(case, load_from=f'{PLACE}/{case}.pth').test()
    assert scores == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize('case', WITH_EMA)
def test_averaged_weights(case):
    ema = read(case)['ema_state_dict']
    assert ema.pop('steps') > 0
    state = {k.removeprefix('module.'): v for k, v in ema.items()}
    assert any(not torch.equal(v, read(case)['state_dict'][k]) for k, v in state.items())
    runner = runner_of(case)
    runner.model.load_state_dict(state, strict=True)
    assert_as_before(outputs(case, runner), f'{case}.ema')


def test_training_goes_on():
    """After two epochs of three: the third ends where it did without a break."""
    case = 'vit_ema'
    runner = runner_of(case, load_from=f'{PLACE}/{case}.pth', resume=True)
    history = len(read(case)['message_hub']['log_scalars']['train/loss']['counts'])
    assert history == 40  # two epochs of twenty steps
    runner.train()
    assert (runner.epoch, runner.iter) == (3, 60)
    assert len(runner.message_hub.get_scalar('train/loss').data[0]) == 60
    assert_as_before(outputs(case, runner), f'{case}.resumed')
    written = torch.load('work/epoch_3.pth', weights_only=True)
    assert written.keys() == read(case).keys()
    for key in ('state_dict', 'ema_state_dict'):
        assert written[key].keys() == read(case)[key].keys()


def test_another_language_model_is_refused():
    """The record of frozen weights is understood, not just passed over."""
    cfg = Config.fromfile(f'{PLACE}/vit_ema.py')
    cfg.model.neck.block.layers = (0,)
    runner = runner_of('vit_ema', model=cfg.model)
    with pytest.raises(lm4ve.errors.CheckpointError, match='other frozen weights'):
        runner.model.load_state_dict(read('vit_ema')['state_dict'])


def test_scene_cache():
    """The cache of a split is whole and says what was read into it."""
    runner = runner_of('vectornet')
    cfg = runner.cfg.test_dataloader.dataset
    dataset = DATASETS.build(dict(cfg, verify=True))
    assert len(dataset) == 4
    sample = dataset[0]
    assert_as_before(
        {k: np.asarray(v) for k, v in sample.items() if isinstance(v, np.ndarray)}, 'scene'
    )


def test_modelnet40_cache():
    """An array whose making takes an hour is found again."""
    dataset = DATASETS.build(
        dict(type='lm4ve.ModelNet40', data_root=f'{PLACE}/modelnet40', num_points=16, pipeline=[])
    )
    clouds = {str(i): dataset[i]['points'] for i in range(len(dataset))}
    assert_as_before(clouds | {'labels': np.array([0, 0, 2])}, 'modelnet40')
    assert [d['gt_label'] for d in dataset] == [0, 0, 2]
