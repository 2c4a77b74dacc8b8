"""``compile`` in a config: the same training, with the names and files of one without it."""

import copy

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from torch._dynamo.utils import counters

from lm4ve.errors import UserError
from lm4ve.runner.command_line import build_runner
from lm4ve.runner.compiling import check_compile
from tests.helpers.shrink import shrinker_of

pytest.importorskip('mmpretrain')

#: Task -> a config without random draws in the model: compiled code draws others.
STEADY = dict(
    image={'model.backbone.drop_path_rate': 0.0, 'randomness.seed': 3},
    pointcloud={
        'model.backbone.drop_path_rate': 0.0,
        'model.head.dropout': 0.0,
        'randomness.seed': 3,
    },
)
#: Task -> a config.
CONFIGS = dict(
    image='vit-demo_minilm_digits.py',
    pointcloud='pointbert-demo_minilm_primitives.py',
)


class Losses(Hook):
    """Keeps the loss of each step."""

    def __init__(self):
        self.values = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.values.append(outputs['loss'].item())


@pytest.fixture(params=CONFIGS)
def shrinker(request, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        shrinker = shrinker_of(request.param, tmp_path / 'tiny_files')
        shrinker.enter(patch)
        yield shrinker
    torch.compiler.reset()


def config(shrinker, work_dir, compile, epochs=2):
    """Load a small config whose epochs end with a smaller batch."""
    name = CONFIGS[shrinker.task]
    cfg = shrinker.load(name, work_dir, epochs, options=STEADY[shrinker.task])
    cfg.train_dataloader.update(batch_size=3, drop_last=False)
    cfg.compile = compile
    return cfg


def train(cfg):
    """Train; return the runner and the loss of each step."""
    torch.manual_seed(0)
    np.random.seed(0)
    runner = build_runner(cfg)
    losses = Losses()
    runner.register_hook(losses)
    runner.train()
    return runner, losses.values


def assert_equal_runs(shrinker, tmp_path, compile):
    """Train, resume and test with and without ``compile``; compare what each gives."""
    results = {}
    for name, value in dict(plain=False, compiled=compile).items():
        work_dir = tmp_path / name
        counters.clear()
        runner, losses = train(config(shrinker, work_dir, value))
        # One size and, from the last batch on, any.
        assert counters['stats']['unique_graphs'] == (0 if name == 'plain' else 2)
        cfg = config(shrinker, work_dir, value, epochs=3)
        cfg.resume = 'newest'
        resumed, more = train(cfg)
        assert resumed.epoch == 3
        state = torch.load(work_dir / 'epoch_3.pth', weights_only=True)['state_dict']
        cfg = config(shrinker, work_dir, value)
        cfg.load_from = str(work_dir / 'epoch_3.pth')
        results[name] = (losses + more, state, build_runner(cfg).test())
    plain, compiled = results['plain'], results['compiled']
    assert compiled[0] == pytest.approx(plain[0], rel=1e-4)
    assert list(compiled[1]) == list(plain[1])
    assert compiled[2].keys() == plain[2].keys()


def test_a_compiled_training_equals_a_plain_one(shrinker, tmp_path):
    assert_equal_runs(shrinker, tmp_path, dict(backend='eager'))


@pytest.mark.walk
def test_a_training_with_generated_code_equals_a_plain_one(shrinker, tmp_path):
    assert_equal_runs(shrinker, tmp_path, True)


def test_copies_and_predictions_of_a_compiled_model_are_plain(shrinker, tmp_path):
    counters.clear()
    cfg = config(shrinker, tmp_path, dict(backend='eager'), epochs=1)
    runner, _ = train(cfg)
    compiled = counters['stats']['unique_graphs']
    assert compiled > 0
    twin = copy.deepcopy(runner.model)
    assert twin._compiled_call_impl is None
    batch = next(iter(runner.val_dataloader))
    runner.model.val_step(batch)
    twin.val_step(batch)
    assert counters['stats']['unique_graphs'] == compiled


def test_a_block_that_is_dropped_is_refused_in_a_compiled_training(tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        shrinker = shrinker_of('image', tmp_path / 'tiny_files')
        shrinker.enter(patch)
        cfg = config(shrinker, tmp_path, dict(backend='eager'))
        runner = build_runner(cfg)
        neck = runner.model.neck
        neck.forward = lambda feats, *args: tuple(f.mean(dim=1) for f in feats)
        with pytest.raises(UserError, match='model.neck'):
            runner.train()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(backnd='eager'), 'compile.*backnd.*backend'),
        (dict(backend='inducter'), 'compile.backend.*inductor'),
    ],
)
def test_a_wrong_option_is_named(options, message):
    with pytest.raises(UserError, match=message):
        check_compile(options)


def test_a_machine_without_a_compiler_is_told_what_to_install(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with torch._inductor.config.patch({'cpp.cxx': ('no-compiler-of-this-name',)}):
        with pytest.raises(UserError, match=r'C\+\+ compiler.*Fix: install g\+\+'):
            check_compile({})
        check_compile(dict(backend='aot_eager'))
