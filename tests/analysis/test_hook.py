"""The hook draws what it should, where it should, and changes nothing else."""

import random
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.model import MMDistributedDataParallel

pytest.importorskip('mmpretrain')
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: E402

from lm4ve.analysis import visualizer_hook as hook_module  # noqa: E402
from lm4ve.analysis.visualizer_hook import ActivationVisHook  # noqa: E402
from lm4ve.errors import UserError  # noqa: E402
from lm4ve.runner.command_line import build_runner  # noqa: E402
from tests.helpers.shrink import shrinker_of  # noqa: E402

DIGITS = 'vit-demo_minilm_digits.py'
#: Four panels instead of sixteen: quick to draw.
SMALL = dict(enable=True, measures=['frequency'], attention=False)


def digits_runner(work_dir: Path, epochs: int = 2, backends=(), **hook):
    """16 images to train with, 16 to validate with, in batches of 8."""
    cfg = shrinker_of('image', work_dir).load(DIGITS, work_dir, epochs)
    cfg.visualizer.vis_backends = [dict(type=b) for b in backends]
    cfg.default_hooks.checkpoint.interval = -1
    if hook:
        cfg.custom_hooks = [dict(type='lm4ve.ActivationVisHook', **hook)]
    return build_runner(cfg)


def train_from_the_same_start(runner) -> dict:
    """Train a model that uses every generator, as one with dropout at test time would."""

    def draw(*_):
        torch.rand(1), np.random.rand(), random.random()

    runner.model.backbone.register_forward_pre_hook(draw)
    torch.manual_seed(3), np.random.seed(3), random.seed(3)
    runner.train()
    return {k: v.clone() for k, v in runner.model.state_dict().items()}


# ------------------------------------------------------------------- what is drawn
@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Two epochs of two steps, with pictures to two backends."""
    root = tmp_path_factory.mktemp('with')
    runner = digits_runner(
        root, backends=('LocalVisBackend', 'TensorboardVisBackend'), enable=True, interval=9
    )
    return root, train_from_the_same_start(runner), runner


def test_pictures_go_to_the_backends_at_their_steps(trained):
    root = trained[0]
    expected = {(f'val_activations_{i:05d}', step) for i in (0, 9) for step in (2, 4)}
    files = {p.stem: p for p in root.glob('*/vis_data/vis_image/*.png')}
    assert set(files) == {f'{name}_{step}' for name, step in expected}
    sheet = cv2.imread(str(files['val_activations_00009_2']))
    # RGB all the way: the high end of the colour map is yellow, not cyan.
    b, g, r = sheet.reshape(-1, 3).astype(int).T
    assert ((r > 200) & (g > 200) & (b < 120)).sum() > 50
    events = EventAccumulator(str(next(root.glob('*/vis_data'))), dict(images=0)).Reload()
    found = {(tag, event.step) for tag in events.Tags()['images'] for event in events.Images(tag)}
    assert found == expected


def test_training_is_bit_equal_without_the_hook(trained, tmp_path):
    without = train_from_the_same_start(digits_runner(tmp_path))
    torch.testing.assert_close(trained[1], without, rtol=0, atol=0)


def one_batch(runner, hook, mode: str = 'val', model=None) -> list:
    """Give the hook the loader's first batch; return the pictures' names."""
    batch, names = next(iter(runner.val_dataloader)), []
    with torch.no_grad():
        outputs = runner.model.val_step(batch)
    visualizer = SimpleNamespace(dataset_meta=None, add_image=lambda n, *_, **__: names.append(n))
    model = runner.model if model is None else model
    stub = SimpleNamespace(model=model, visualizer=visualizer, iter=5)
    stub.experiment_name = 'experiment'
    hook.before_run(stub)
    getattr(hook, f'before_{mode}_epoch')(stub)
    getattr(hook, f'after_{mode}_iter')(stub, 0, batch, outputs)
    return names


def test_interval_and_max_samples_limit_the_pictures(trained):
    runner = trained[2]
    assert one_batch(runner, ActivationVisHook()) == []
    hook = ActivationVisHook(interval=2, max_samples=2, **SMALL)
    expected = [f'test_activations_{i:05d}' for i in (0, 2)]
    assert one_batch(runner, hook, 'test') == expected
    # Counted anew in each epoch.
    assert one_batch(runner, hook, 'test') == expected


def test_a_distributed_model_is_drawn_without_communication(trained, monkeypatch, tmp_path):
    torch.distributed.init_process_group(
        'gloo', store=torch.distributed.FileStore(str(tmp_path / 's'), 1), rank=0, world_size=1
    )
    try:
        wrapped = MMDistributedDataParallel(trained[2].model)
        monkeypatch.setattr(wrapped, 'forward', None)  # whose forward would wait
        names = one_batch(trained[2], ActivationVisHook(**SMALL), model=wrapped)
        assert names == ['val_activations_00000']
    finally:
        torch.distributed.destroy_process_group()


def test_the_average_is_drawn_where_it_is_evaluated(tmp_path, monkeypatch):
    drawn, analyse = [], hook_module.analyse

    def record(model, *args):
        drawn.append(model.neck.mapper_in.weight.clone())
        return analyse(model, *args)

    monkeypatch.setattr(hook_module, 'analyse', record)
    cfg = shrinker_of('image', tmp_path).load(DIGITS, tmp_path, 1)
    hook = dict(type='lm4ve.ActivationVisHook', **SMALL)
    cfg.custom_hooks = [dict(type='EMAHook', momentum=0.5), hook]
    runner = build_runner(cfg)
    runner.train()
    ema = next(h for h in runner.hooks if type(h).__name__ == 'EMAHook')
    average = ema.ema_model.module.neck.mapper_in.weight
    assert not torch.equal(average, runner.model.neck.mapper_in.weight)
    assert torch.equal(drawn[0], average)


# ------------------------------------------------------------------------ mistakes
def test_a_drawing_error_does_not_end_training(tmp_path, monkeypatch):
    def refuse(*args):
        raise UserError('not finite')

    monkeypatch.setattr(hook_module, 'analyse', refuse)
    digits_runner(tmp_path, epochs=1, enable=True).train()
    log = next(tmp_path.glob('*/*.log')).read_text()
    assert log.count('ActivationVisHook draws no activations: not finite') == 1
