"""Fields of a config that set the precision, and the line of the log that says it."""

import logging
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from torch import nn

from lm4ve.errors import UserError
from lm4ve.runner import precision, process_rank
from lm4ve.runner.config import check_config
from lm4ve.runner.precision import PrecisionHook, describe_precision, put_channels_last
from lm4ve.runner.runner import Runner, build_runner
from tests.helpers.runner import toy_neck
from tests.helpers.shrink import shrinker_of


@pytest.fixture(autouse=True)
def restored_flags():
    """torch's flags are the process's: what a run sets is undone."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = (matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark)
    cudnn.benchmark = False  # a config of another test may have set it
    yield
    matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = before


def flags() -> tuple[bool, bool]:
    """Return whether products and convolutions may be computed in TF32."""
    return (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)


def runner_of(work_dir: Path, **fields) -> Runner:
    """Build our runner of a small model with a block."""
    cfg = Config(fields)
    optimizer = fields.pop('optimizer', dict(type='AdamW', lr=1e-3))
    wrapper = fields.pop('optim_wrapper', dict(optimizer=optimizer))
    env_cfg = fields.pop('env_cfg', dict())
    return toy_neck.make_runner(
        work_dir, runner=Runner, env_cfg=env_cfg, optim_wrapper=wrapper, cfg=cfg
    )


# --------------------------------------------------------------------------- the fields
@pytest.mark.parametrize(
    ('field', 'expected'),
    [(None, (False, True)), (True, (True, True)), (False, (False, False))],
)
def test_tf32_is_set_where_the_config_says_so(field, expected, tmp_path):
    """torch's own setting is TF32 in convolutions, but not in products."""
    runner_of(tmp_path, env_cfg=dict(tf32=field))
    assert flags() == expected


@pytest.mark.parametrize('field', [True, False])
def test_cudnn_benchmark_is_set_where_the_config_says_so(field, tmp_path):
    runner_of(tmp_path, env_cfg=dict(cudnn_benchmark=field))
    assert torch.backends.cudnn.benchmark == field


WRONG = [
    (dict(env_cfg=dict(tf23=True)), "env_cfg.tf23 .*'tf32'"),
    (dict(env_cfg=dict(tf32='on')), 'env_cfg.tf32=.*on'),
    (dict(chanels_last=True), "chanels_last .*'channels_last'"),
    (dict(channels_last='yes'), 'channels_last=.*yes'),
    (dict(env_cfg=dict(cudnn_bench=True)), "cudnn_bench .*'cudnn_benchmark'"),
]


@pytest.mark.parametrize(('fields', 'message'), WRONG, ids=str)
def test_misspelled_field_is_refused(fields, message):
    with pytest.raises(UserError, match=message):
        check_config(Config(fields))


@pytest.mark.parametrize(
    'fields', [dict(channels_last=True), dict(env_cfg=dict(tf32=True))], ids=str
)
def test_a_runner_that_reads_no_such_field_is_refused(fields, tmp_path):
    cfg = Config(dict(fields, runner_type='FlexibleRunner', work_dir=str(tmp_path)))
    with pytest.raises(UserError, match="'FlexibleRunner' does not read it"):
        build_runner(cfg)


LAYOUTS = [
    (nn.Conv2d(3, 8, 3), (2, 3, 9, 7), torch.channels_last),
    (nn.Conv3d(3, 8, 3), (2, 3, 5, 6, 7), torch.channels_last_3d),
    (nn.ConvTranspose2d(3, 8, 3), (2, 3, 5, 4), torch.channels_last),
]


@pytest.mark.parametrize(('conv', 'shape', 'memory_format'), LAYOUTS, ids=str)
def test_convolutions_compute_in_the_layout_of_their_weights(
    conv, shape, memory_format
):
    x = torch.randn(shape)
    expected = conv(x)
    put_channels_last(conv)
    out = conv(x)
    assert out.is_contiguous(memory_format=memory_format)
    torch.testing.assert_close(out, expected)


def test_model_with_channels_last_gives_the_same_loss(tmp_path, monkeypatch):
    shrinker = shrinker_of('medical', tmp_path / 'files')
    shrinker.enter(monkeypatch)
    losses = []
    layouts = []
    for channels_last in (False, True):
        work_dir = tmp_path / str(channels_last)
        cfg = shrinker.load('cmunext-demo_minilm_ultrasound.py', work_dir)
        cfg.channels_last = channels_last
        torch.manual_seed(0)
        runner = build_runner(cfg)
        model = runner.model.double()
        torch.manual_seed(0)
        model.init_weights()
        loader = runner.build_dataloader(cfg.train_dataloader, seed=0)
        data = model.data_preprocessor(next(iter(loader)), training=True)
        data['inputs'] = data['inputs'].double()
        torch.manual_seed(0)
        losses.append(model.parse_losses(model(**data, mode='loss'))[0].item())
        layouts.append(has_channels_last(model))
    assert layouts == [False, True]
    assert losses[1] == pytest.approx(losses[0], rel=1e-9)


def has_channels_last(model: nn.Module) -> bool:
    """Return whether the weights of a model's larger convolutions have channels last."""
    weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
    # A weight with one channel or one position is in both layouts.
    weights = [w for w in weights if w.shape[1] > 1 and w.shape[2] > 1]
    assert weights
    return all(w.is_contiguous(memory_format=torch.channels_last) for w in weights)


def test_fused_optimizer_trains_as_the_plain_one(tmp_path):
    weights = []
    for fused in (False, True):
        torch.manual_seed(0)
        # With a larger eps, steps depend smoothly on gradients that are rounding alone.
        optimizer = dict(type='AdamW', lr=1e-3, eps=1e-3, fused=fused)
        runner = runner_of(tmp_path / str(fused), optimizer=optimizer)
        runner.train()
        assert runner.optim_wrapper.optimizer.defaults['fused'] == fused
        weights.append(nn.utils.parameters_to_vector(runner.model.parameters()))
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-3, atol=1e-5)


# -------------------------------------------------------------------- the line of a log
LINES = [
    (dict(), 'float32; block float32'),
    (
        dict(optimizer=dict(type='AdamW', lr=1e-3, fused=True), channels_last=True),
        'float32; block float32; channels_last; fused AdamW',
    ),
    (
        dict(env_cfg=dict(cudnn_benchmark=True)),
        'float32; block float32; cudnn_benchmark',
    ),
]
SGD = dict(type='SGD', lr=1e-3)
for _dtype, _end in (
    ('bfloat16', ''),
    ('float16', ' with a loss scaler'),
):
    _wrapper = dict(type='lm4ve.AutocastOptimWrapper', dtype=_dtype, optimizer=SGD)
    _line = f'float32, autocast {_dtype}{_end}; block float32'
    LINES.append((dict(optim_wrapper=_wrapper), _line))


@pytest.mark.parametrize(('fields', 'line'), LINES, ids=[line for _, line in LINES])
def test_log_of_a_training_has_its_precision(fields, line, tmp_path, caplog):
    runner = runner_of(tmp_path, **fields)
    runner.register_hook(PrecisionHook())
    runner.logger.setLevel(logging.INFO)
    runner.logger.addHandler(caplog.handler)
    runner.train()
    (record,) = [r for r in caplog.records if r.message.startswith('precision ')]
    assert record.message.split(maxsplit=1)[1] == line
    assert record.for_console


TF32 = {
    (False, False): 'no TF32',
    (True, False): 'TF32 in products',
    (False, True): 'TF32 in convolutions',
    (True, True): 'TF32 in products and convolutions',
}


@pytest.mark.parametrize('allowed', TF32)
def test_line_of_a_gpu_says_where_tf32_is_used(allowed):
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = allowed
    assert precision._describe_tf32() == TF32[allowed]


@pytest.mark.parametrize('amp', [True, False])
def test_float16_block_without_a_scaler_gets_a_warning(amp, tmp_path, caplog):
    wrapper = dict(optimizer=dict(type='SGD', lr=1e-3))
    if amp:
        wrapper.update(type='lm4ve.AutocastOptimWrapper', dtype='float16')
    runner = runner_of(tmp_path, optim_wrapper=wrapper)
    runner.model.neck.block.half()
    runner.register_hook(PrecisionHook())
    runner.logger.addHandler(caplog.handler)
    runner.logger.setLevel(logging.INFO)
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    PrecisionHook().before_train(runner)
    warned = [r for r in caplog.records if 'without a loss scaler' in r.message]
    assert bool(warned) != amp
    assert describe_precision(runner).endswith('block float16')


def test_processes_with_other_types_are_refused(tmp_path, monkeypatch):
    """Ranks on machines with other GPUs; the answer of the others stands in for them."""
    others = [['float32'], ['bfloat16']]
    monkeypatch.setattr(process_rank, 'all_gather_object', lambda mine: others)
    with pytest.raises(UserError, match="process 1: 'auto' follows from a machine's"):
        runner_of(tmp_path)
