"""Without a GPU, mixed precision is left out of a config, and a warning says so."""

import pytest
import torch
from mmengine.config import Config

from lm4ve.errors import UserError
from lm4ve.runner.without_gpu import adapt_to_cpu, join_group
from tests.helpers.logs import record_logs
from tests.helpers.processes import free_port

AMP = dict(type='AmpOptimWrapper', loss_scale='dynamic', optimizer=dict(type='SGD'))
PLAIN = dict(type='OptimWrapper', optimizer=dict(type='SGD'))
CASES = [
    (AMP, False, True, 'No GPU: training in fp32, without AmpOptimWrapper.'),
    (AMP, False, False, 'No GPU: testing in fp32, without AmpOptimWrapper.'),
    (PLAIN, True, False, 'No GPU: testing in fp32, without test_cfg.fp16.'),
    (None, True, False, 'No GPU: testing in fp32, without test_cfg.fp16.'),
    (
        AMP,
        True,
        True,
        'No GPU: training in fp32, without AmpOptimWrapper and test_cfg.fp16.',
    ),
    (PLAIN, False, True, None),
    (PLAIN, False, False, None),
]


@pytest.mark.parametrize('wrapper, fp16, trains, warning', CASES)
def test_mixed_precision_is_left_out_and_said_once(
    monkeypatch, wrapper, fp16, trains, warning
):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    warnings = record_logs(monkeypatch, 'lm4ve.runner.without_gpu')
    fields = dict(optim_wrapper=wrapper, val_cfg=None, test_cfg=dict(fp16=fp16))
    cfg = Config(dict(fields, launcher='none'))
    adapt_to_cpu(cfg, trains)
    assert warnings == ([warning] if warning else [])
    assert cfg.test_cfg.fp16 is False
    if wrapper is not None:
        assert cfg.optim_wrapper.to_dict() == PLAIN


@pytest.mark.parametrize('fp16', [True, False])
def test_with_a_gpu_nothing_changes(monkeypatch, fp16):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    fields = dict(optim_wrapper=AMP, test_cfg=dict(fp16=fp16), launcher='none')
    cfg = Config(fields)
    adapt_to_cpu(cfg)
    assert cfg.to_dict() == fields


@pytest.fixture
def first_of_two(monkeypatch):
    """This process is the first one of two, the second of which never comes."""
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    port = str(free_port())
    variables = dict(
        RANK='0', WORLD_SIZE='2', MASTER_ADDR='127.0.0.1', MASTER_PORT=port
    )
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def config_with(timeout) -> Config:
    return Config(
        dict(launcher='pytorch', env_cfg=dict(dist_cfg=dict(timeout=timeout)))
    )


def test_process_waits_for_the_others_as_long_as_the_config_says(first_of_two):
    with pytest.raises(torch.distributed.DistStoreError, match='1/2 clients joined'):
        join_group(config_with(1.5))
    assert not torch.distributed.is_initialized()


def test_timeout_that_is_no_time_is_refused(first_of_two):
    with pytest.raises(
        UserError, match='env_cfg.dist_cfg.timeout=-1 must be .* above 0'
    ):
        join_group(config_with(-1))
