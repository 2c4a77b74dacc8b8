"""A neck computes what its modules compute now: hooks, adapters, threads, replicas, traces."""

import copy
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import torch
from torch import nn
from torch.nn.modules import module as torch_module
from torch.nn.utils import parametrizations
from torch.utils.flop_counter import FlopCounterMode

import lm4ve
from lm4ve.blocks import Frozen, LLMBlock, frozen_tensors
from lm4ve.errors import UserError
from lm4ve.necks import LLMBlockNeck
from tests.helpers.closeness import assert_equal_but_for_rounding
from tests.helpers.families import FAMILIES, FAST
from tests.helpers.necks import tiny
from tests.helpers.necks.encoder import Encoder, loud
from tests.helpers.necks.equality import C, assert_same, tokens
from tests.helpers.necks.foreign import Adapter, hidden, replicate

#: Width of the block.
D = 32
#: The tokens that are asked for: the first two of five.
QUERIES = slice(0, 2)


def build_neck(
    low_rank: str, block=None, family: str = 'opt', **options
) -> LLMBlockNeck:
    """Build a neck with the same weights every time, large enough that attention varies.

    Args:
        low_rank (str): How the neck uses the low rank of the block's input.
        block (nn.Module, optional): Default: a new ``LLMBlock``.
        family (str): The family of that block.
        **options: More arguments of that block.
    """
    torch.manual_seed(0)
    if block is None:
        arch = dict(FAMILIES[family], initializer_range=0.3)
        block = LLMBlock(arch=arch, **options)
    return loud(LLMBlockNeck(C, block, low_rank=low_rank))


# -------------------------------------------------------------------------- intrusions


def ramp(_, x):
    """A forward pre-hook that scales channels by 0.5 to 2."""
    return (x[0] * torch.linspace(0.5, 2, x[0].shape[-1]),)


def bias(part):
    """Give a linear layer another bias."""
    linear = hidden(part)
    linear.bias = nn.Parameter(
        torch.linspace(-1, 1, len(linear.weight)), part is linear
    )


def weight_norm(part):
    """Reparametrize a linear layer, and make its rows longer."""
    parametrizations.weight_norm(hidden(part))
    hidden(part).parametrizations.weight.original0.data.mul_(1.5)


#: Ways in which other code changes what a part of a neck computes: name -> a function of
#: the part, which changes it or returns another one for its place.
INTRUSIONS = dict(
    forward_hook=lambda part: part.register_forward_hook(lambda m, x, out: out * 1.5),
    pre_hook=lambda part: part.register_forward_pre_hook(ramp),
    hidden_hook=lambda part: hidden(part).register_forward_hook(
        lambda m, x, out: out * 1.5
    ),
    patched_forward=lambda part: setattr(
        part, 'forward', lambda x, f=part.forward: f(x) * 1.5
    ),
    adapter=Adapter,
    bias=bias,
    weight_norm=weight_norm,
)
PARTS = ('mapper_in', 'q_proj', 'k_proj', 'v_proj', 'attention_norm')
NORM = ('weight_norm', 'attention_norm')  # which has no matrix
PAIRS = [(i, p) for i in INTRUSIONS for p in PARTS if (i, p) != NORM]


@pytest.mark.parametrize('method', ['auto', 'fold', 'absorb'])
@pytest.mark.parametrize('intrude, name', PAIRS)
def test_what_acts_on_a_part_counts(intrude, name, method):
    plain, low = (build_neck(m) for m in ('off', method))
    before = low(tokens(), queries=QUERIES)
    for neck in (plain, low):
        owner = neck if name == 'mapper_in' else neck.block.layers[0]
        torch.manual_seed(3)
        replaced = INTRUSIONS[intrude](getattr(owner, name))
        if isinstance(replaced, nn.Module):
            setattr(owner, name, replaced)
    assert_same((plain, low), tokens(), queries=QUERIES)
    expected = plain(tokens(), queries=QUERIES)
    # A bias of the keys is the same for every key: softmax drops it.
    dropped = (intrude, name) == ('bias', 'k_proj')
    assert dropped or not torch.allclose(expected, before, atol=1e-3)
    assert_equal_but_for_rounding(
        lm4ve.fuse(low)(tokens(), queries=QUERIES), expected, plain
    )


@pytest.mark.parametrize('place', ['block', 'block.layers.0'])
def test_hooks_of_block_and_layer_fire(place):
    plain, low = (build_neck(m) for m in ('off', 'fold'))
    for neck in (plain, low):
        neck.get_submodule(place).register_forward_hook(lambda m, x, out: out * 1.5)
    assert_same((plain, low), tokens(), queries=QUERIES)


@contextmanager
def global_hook(register, *arguments):
    handle = register(*arguments)
    try:
        yield
    finally:
        handle.remove()


def of_linear(change):
    def hook(module, *values):
        return change(values) if isinstance(module, nn.Linear) else None

    return hook


FROM_OUTSIDE = {
    'a hook of all modules': lambda: global_hook(
        torch_module.register_module_forward_hook,
        of_linear(lambda values: values[1] / 2),
    ),
    'a hook before all modules': lambda: global_hook(
        torch_module.register_module_forward_pre_hook,
        of_linear(lambda values: (values[0][0] / 2,)),
    ),
    'a backward hook of all modules': lambda: global_hook(
        torch_module.register_module_full_backward_hook,
        of_linear(lambda values: (values[0][0] / 2,)),
    ),
}


@pytest.mark.parametrize('method', ['auto', 'fold', 'absorb'])
@pytest.mark.parametrize('name', FROM_OUTSIDE)
def test_what_acts_on_modules_from_outside_counts(name, method):
    plain, low = (build_neck(m, family='llama') for m in ('off', method))
    assert_same((plain, low), tokens(), queries=QUERIES)
    with FROM_OUTSIDE[name]():
        assert_same((plain, low), tokens(), queries=QUERIES)
        assert not low.block.can_fold(low.mapper_in)
    assert low.block.can_fold(low.mapper_in)


@pytest.mark.parametrize('family', FAST)
def test_only_what_changes_results_counts(family):
    neck = build_neck('auto', family=family)
    with torch.device('cpu'), FlopCounterMode(display=False):
        assert neck.block.can_fold(neck.mapper_in)


# ------------------------------------------- changed weights, threads, replicas, traces
WRITES = [
    lambda p: p.data.mul_(1.5),
    lambda p: p.detach().numpy().__imul__(1.5),
    lambda p: setattr(p, 'data', p.data * 1.5),
]


@pytest.mark.parametrize('method', ['fold', 'absorb', 'auto'])
@pytest.mark.parametrize('write', WRITES)
@torch.no_grad()
def test_evaluation_uses_the_current_weights(write, method):
    plain, low = (build_neck(m, trainable='all').eval() for m in ('off', method))
    before = low(tokens())
    for neck in (plain, low):
        for p in [*neck.parameters(), *frozen_tensors(neck).values()]:
            write(p)
    found, expected = (neck(tokens()) for neck in (low, plain))
    assert_equal_but_for_rounding(found, expected, plain)
    assert not torch.allclose(before, expected, atol=1e-2)


@pytest.mark.parametrize('method', ['fold', 'absorb'])
@pytest.mark.bitwise
def test_two_necks_share_a_block_in_two_threads(method):
    block = LLMBlock(arch=FAMILIES['opt'])
    pair = [build_neck(method, block).eval() for _ in range(2)]
    nn.init.normal_(pair[1].mapper_in.weight, std=0.7)
    expected = [neck(tokens(), queries=QUERIES) for neck in pair]

    def run(i: int) -> bool:
        return torch.equal(pair[i % 2](tokens(), queries=QUERIES), expected[i % 2])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(run, range(1000)))


@pytest.mark.parametrize('trainable', ['none', 'all'])
@pytest.mark.parametrize('method', ['fold', 'absorb'])
def test_replicas_of_data_parallel_compute_the_same(method, trainable):
    neck = build_neck(method, trainable=trainable)
    replica = replicate(neck)
    assert_equal_but_for_rounding(replica(tokens()), neck(tokens()), neck)
    with torch.no_grad():
        neck.mapper_in.weight.mul_(2)
    assert_equal_but_for_rounding(replicate(neck)(tokens()), neck(tokens()), neck)
    for module in replica.modules():
        if isinstance(module, Frozen):
            module.follow(torch.device('meta'))
    assert not any(t.is_meta for t in frozen_tensors(neck).values())


@pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning')
@pytest.mark.parametrize('method', ['fold', 'absorb', 'auto'])
def test_a_trace_follows_the_weights(method):
    neck = build_neck(method).eval()
    traced = torch.jit.trace(neck, tokens(), check_trace=False)
    with torch.no_grad():
        neck.mapper_in.weight.mul_(-0.7)
    assert_equal_but_for_rounding(traced(tokens(3)), neck(tokens(3)), neck)


# --------------------------------------------------------------------------------------
# fuse
VARIANTS = (
    'llama-gqa',
    'qwen3',
    'opt',
    'bert',
    'gemma4-keys-as-values',
    't5',
)


@pytest.mark.parametrize(
    'block',
    [{}, dict(rotary=True), dict(layers=(0, 1), causal=True), dict(trainable='all')],
    ids=str,
)
@pytest.mark.parametrize('family', VARIANTS)
def test_a_fused_neck_gives_the_same(family, block):
    if 'rotary' in block and family in ('opt', 'bert', 't5'):
        block = {}
    mask = torch.zeros(2, 5, dtype=torch.bool)
    mask[0, 3:] = True
    for residual in ('none', 'both'):
        neck = build_neck('auto', family=family, **block)
        neck.residual = residual
        fused = lm4ve.fuse(neck)
        for queries in (None, slice(0, 1), slice(1, 4), torch.tensor([[0, 2], [1, 0]])):
            found, expected = (m(tokens(), mask, queries) for m in (fused, neck))
            assert_equal_but_for_rounding(found, expected, neck)


def test_fuse_leaves_the_neck_as_it_was():
    neck = build_neck(low_rank='off', trainable='all')
    before = copy.deepcopy(neck.state_dict())
    lm4ve.fuse(neck)
    assert neck.training
    for name, tensor in neck.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_a_fused_neck_projects_from_the_encoder_width_and_trains_nothing():
    fused = lm4ve.fuse(build_neck(low_rank='off', trainable='all'))
    assert not fused.training
    (layer,) = fused.block.block.layers
    for projection in (layer.q_proj, layer.k_proj, layer.v_proj):
        # [D, D] before: the mapper from C to D is folded into it.
        assert projection.wrapped.weight.shape == (D, C)
    assert not any(parameter.requires_grad for parameter in fused.parameters())


def test_a_fused_neck_and_its_copies_keep_the_weights_of_the_moment():
    neck = build_neck(low_rank='off', trainable='all')
    fused = lm4ve.fuse(neck)
    with torch.no_grad():
        expected = fused(tokens())
        for parameter in neck.parameters():
            parameter.mul_(2)
        assert_equal_but_for_rounding(fused(tokens()), expected, neck)
    copied = copy.deepcopy(fused)
    assert_equal_but_for_rounding(copied(tokens()), expected, neck)
    assert_equal_but_for_rounding(lm4ve.fuse(copied)(tokens()), expected, neck)


LOADS = [
    lambda fused, state: fused.load_state_dict(state),
    lambda fused, state: fused.load_state_dict({}, strict=False),
    lambda fused, state: fused[0].load_state_dict(state),
]


@pytest.mark.parametrize('load', LOADS)
def test_a_fused_model_loads_nothing(load):
    model = nn.Sequential(build_neck('auto'))
    with pytest.raises(UserError, match='takes no checkpoint|is a FusedBlock'):
        load(lm4ve.fuse(model), model.state_dict())


def test_several_necks_of_a_model_are_fused():
    block = LLMBlock(arch=FAMILIES['llama'])
    control = LLMBlockNeck(C, dict(type='MLPBlock', embed_dims=16))
    inner = lm4ve.wrap(Encoder(), 'stem', dict(arch=FAMILIES['bert']))
    model = nn.Sequential(
        build_neck('auto', block), build_neck('auto', block), control, inner
    ).eval()
    fused = lm4ve.fuse(model)
    kinds = [type(m.mapper_in) for m in fused.modules() if isinstance(m, LLMBlockNeck)]
    assert sorted(map(str, kinds)) == sorted(map(str, [nn.Identity] * 3 + [nn.Linear]))
    assert_equal_but_for_rounding(fused(tokens()), model(tokens()), model)


class Lending(nn.Module):
    """A wrapper that lends its module's attributes, as FSDP1's does; it counts its calls."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.calls = 0

    def __getattr__(self, name: str):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.module, name)

    def forward(self, *args, **kwargs):
        self.calls += 1
        return self.module(*args, **kwargs)


@pytest.mark.parametrize('method', ['fold', 'absorb'])
def test_a_wrapped_block_runs_by_its_wrapper(method):
    neck = tiny.make(low_rank=method)
    x = torch.randn(2, 5, tiny.C)
    expected = neck(x)
    neck.block = Lending(neck.block)
    torch.testing.assert_close(neck(x), expected)
    assert neck.block.calls == 1
