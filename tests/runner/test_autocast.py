"""``lm4ve train --amp bf16|fp16``: the wrapper that it chooses, and what this one computes."""

import copy
import math

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.optim import build_optim_wrapper
from torch import nn

from lm4ve.commands.flags import parser_of
from lm4ve.commands.train import set_flags
from lm4ve.cost.step import amp_dtype
from lm4ve.errors import UserError
from lm4ve.runner import autocast
from lm4ve.runner.autocast import AMP_DTYPES, AutocastOptimWrapper, use_autocast
from lm4ve.runner.config import check_config
from tests.helpers.logs import record_logs

#: Fields that every wrapper keeps.
KEPT = dict(
    optimizer=dict(type='SGD', lr=0.1),
    clip_grad=dict(max_norm=1.0),
    accumulative_counts=2,
    paramwise_cfg=dict(norm_decay_mult=0.0),
    constructor='DefaultOptimWrapperConstructor',
)
OURS = 'lm4ve.AutocastOptimWrapper'
FLOAT16 = dict(KEPT, type=OURS, dtype='float16')
BFLOAT16 = dict(KEPT, type=OURS, dtype='bfloat16')
AMP = dict(KEPT, type='AmpOptimWrapper', loss_scale='dynamic')
SHARDED = dict(AMP, use_fsdp=True)


def config(optim_wrapper, **fields) -> Config:
    block = dict(type='LLMBlock', dtype='auto')
    model = dict(type='Any', neck=[dict(type='LLMBlockNeck', block=block)])
    return Config(dict(model=model, optim_wrapper=optim_wrapper, **fields))


WRAPPERS = [
    (KEPT, 'bf16', BFLOAT16),
    (KEPT, 'fp16', FLOAT16),
    (dict(KEPT, type='OptimWrapper'), 'fp16', FLOAT16),
    (AMP, 'bf16', BFLOAT16),
    (AMP, 'fp16', FLOAT16),
    (SHARDED, 'bf16', BFLOAT16),
    (SHARDED, 'fp16', dict(SHARDED, dtype='float16')),
    (FLOAT16, 'bf16', BFLOAT16),
]


@pytest.mark.parametrize(('before', 'amp', 'after'), WRAPPERS)
def test_wrapper_keeps_its_other_fields(before, amp, after):
    cfg = config(copy.deepcopy(before))
    use_autocast(cfg, amp)
    assert cfg.optim_wrapper.to_dict() == after


@pytest.mark.parametrize(('before', 'amp', 'after'), WRAPPERS)
def test_cost_counts_in_the_dtype_of_the_wrapper(before, amp, after):
    cfg = config(copy.deepcopy(before))
    use_autocast(cfg, amp)
    assert amp_dtype(cfg) == getattr(torch, AMP_DTYPES[amp])


def test_auto_blocks_are_float16_where_the_loss_is_scaled():
    cfg = config(dict(KEPT))
    use_autocast(cfg, 'bf16')
    assert cfg.model.neck[0].block.dtype == 'auto'
    use_autocast(cfg, 'fp16')
    assert cfg.model.neck[0].block.dtype == 'float16'


def test_plain_amp_is_that_of_mmengine():
    cfg = config(dict(KEPT))
    set_flags(cfg, parser_of('train').parse_args(['cfg.py', '--amp']))
    assert cfg.optim_wrapper.to_dict() == AMP


@pytest.mark.parametrize('amp', ['bf16', 'fp16'])
def test_wrapper_of_the_flag_passes_the_check_of_configs(amp):
    cfg = Config(dict(model=dict(), optim_wrapper=copy.deepcopy(KEPT)))
    use_autocast(cfg, amp)
    check_config(cfg)


REFUSED = [
    (config(None), 'no optim_wrapper'),
    (config(dict(generator=dict(type='OptimWrapper'))), 'several optimizers'),
    (config(dict(KEPT, type='ApexOptimWrapper')), "'ApexOptimWrapper' has a precision"),
    (config(dict(KEPT), runner_type='FlexibleRunner'), 'field of its strategy'),
]


@pytest.mark.parametrize(('cfg', 'message'), REFUSED, ids=[m for _, m in REFUSED])
def test_what_cannot_be_wrapped_is_one_line(cfg, message):
    with pytest.raises(UserError, match=f'--amp bf16: .*{message}') as error:
        use_autocast(cfg, 'bf16')
    assert '\n' not in str(error.value)


def test_a_device_without_autocast_is_refused(monkeypatch):
    monkeypatch.setattr(autocast, 'get_device', lambda: 'meta')
    with pytest.raises(UserError, match='no autocast for meta'):
        use_autocast(config(dict(KEPT)), 'bf16')


@pytest.mark.parametrize('has_bfloat16', [True, False])
def test_emulated_bfloat16_gets_a_warning(has_bfloat16, monkeypatch):
    monkeypatch.setattr(autocast, 'computes_bfloat16', lambda device: has_bfloat16)
    texts = record_logs(monkeypatch, 'lm4ve.runner.autocast')
    use_autocast(config(dict(KEPT)), 'bf16')
    assert bool(texts) != has_bfloat16


LINES = {
    'cfg.py': None,
    '--amp cfg.py': True,
    'cfg.py --amp': True,
    'cfg.py --amp --no-validate': True,
    '--amp bf16 cfg.py': 'bf16',
    'cfg.py --amp=fp16': 'fp16',
    'cfg.py --amp fp16 --work-dir a': 'fp16',
}


@pytest.mark.parametrize('line', LINES)
def test_type_of_amp_is_optional_wherever_the_flag_stands(line):
    args = parser_of('train').parse_args(line.split())
    assert args.config == 'cfg.py'
    assert args.amp == LINES[line]


# --------------------------------------------------------------------------- computing
class Net(BaseModel):
    """Two layers with a small loss, whose scaled gradients are in the range of float16."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 4))

    def forward(self, inputs, mode='loss'):
        out = self.layers(inputs)
        return dict(loss=out.float().square().mean() / 100, dtype=out.dtype)

    def parse_losses(self, losses):
        return losses['loss'], dict(losses)


def net_and_wrapper(dtype: str, **fields):
    """A net with seeded weights, and its wrapper as a config builds it."""
    torch.manual_seed(0)
    net = Net()
    optimizer = dict(type='SGD', lr=0.1)
    cfg = dict(type=OURS, dtype=dtype, optimizer=optimizer, **fields)
    return net, build_optim_wrapper(net, cfg)


def batch() -> dict:
    return dict(inputs=torch.randn(8, 16, generator=torch.Generator().manual_seed(1)))


def weights_of(net) -> torch.Tensor:
    return nn.utils.parameters_to_vector(net.parameters()).detach()


@pytest.mark.bitwise
@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_a_step_is_that_of_torch(dtype):
    net, wrapper = net_and_wrapper(dtype)
    seen = net.train_step(batch(), wrapper)
    assert seen['dtype'] == getattr(torch, dtype)
    expected, _ = net_and_wrapper(dtype)
    scale = 2.0**16 if dtype == 'float16' else 1.0
    with torch.autocast('cpu', dtype=getattr(torch, dtype)):
        loss = expected(**expected.data_preprocessor(batch()))['loss']
    (loss * scale).backward()
    with torch.no_grad():
        for parameter in expected.parameters():
            parameter -= 0.1 * (parameter.grad / scale)
    torch.testing.assert_close(weights_of(net), weights_of(expected))


def test_an_overflow_skips_the_step_and_halves_the_scale():
    net, wrapper = net_and_wrapper('float16', clip_grad=dict(max_norm=1.0))
    before = weights_of(net)
    scale = wrapper.loss_scaler.get_scale()
    net.train_step(dict(inputs=torch.full((8, 16), 1e4)), wrapper)
    assert torch.equal(weights_of(net), before)
    assert wrapper.loss_scaler.get_scale() == scale / 2


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_gradients_are_clipped_and_accumulated_unscaled(dtype):
    net, wrapper = net_and_wrapper(
        dtype, clip_grad=dict(max_norm=1e-3), accumulative_counts=2
    )
    wrapper.initialize_count_status(net, 0, 4)
    before = weights_of(net)
    net.train_step(batch(), wrapper)
    assert torch.equal(weights_of(net), before)
    net.train_step(batch(), wrapper)
    moved = (weights_of(net) - before).norm().item()
    assert moved == pytest.approx(0.1 * 1e-3, rel=1e-2)


@pytest.mark.parametrize('after', ['bfloat16', 'float16'])
@pytest.mark.parametrize('before', ['bfloat16', 'float16', 'none'])
def test_states_load_into_the_other_precision(before, after):
    """The scale goes on where both have one, and starts anew after a training without."""
    net, wrapper = net_and_wrapper('float16' if before == 'none' else before)
    if before == 'float16':
        net.train_step(dict(inputs=torch.full((8, 16), math.inf)), wrapper)
    state = wrapper.state_dict()
    if before == 'none':
        del state['loss_scaler']
    _, other = net_and_wrapper(after)
    other.load_state_dict(copy.deepcopy(state))
    scale = other.loss_scaler.get_scale()
    if after == 'bfloat16':
        assert scale == 1
    elif before == 'float16':
        assert scale == 2.0**15
    else:
        assert scale == 2.0**16


def test_unknown_types_are_refused():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    with pytest.raises(UserError, match="optim_wrapper.dtype='float8' must be one of"):
        AutocastOptimWrapper('float8', optimizer=optimizer)
