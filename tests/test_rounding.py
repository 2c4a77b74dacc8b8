"""``pytest --ulp`` rounds as another CPU might: see tests/helpers/rounding.py."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lm4ve.blocks import LLMBlock
from tests.helpers.families import FAMILIES
from tests.helpers.rounding import Rounding

ULPS = 4


@pytest.fixture
def rounding(request):
    if request.config.option.ulp:
        pytest.skip('the products of this run are rounded already')
    rounding = Rounding(ULPS, seed=0)
    rounding.install()
    yield rounding
    rounding.remove()


def attention(x):
    return F.scaled_dot_product_attention(x, x, x)


PRODUCTS = {
    'linear': nn.Linear(8, 8),
    'matmul': lambda x: x @ x.transpose(-2, -1),
    'einsum': lambda x: torch.einsum('bhnc,bhmc->bhnm', x, x),
    'addmm': lambda x: torch.addmm(x[0, 0], x[0, 0], x[0, 0]),
    'convolution': nn.Conv2d(2, 3, 3),
    'attention': attention,
    'recurrence': nn.Sequential(nn.Flatten(0, 1), nn.GRU(8, 8)),
}


def products(x) -> dict[str, torch.Tensor]:
    found = {}
    for name, product in PRODUCTS.items():
        result = product(x)
        found[name] = result[0] if isinstance(result, tuple) else result
    return found


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.bfloat16])
def test_products_change_by_a_few_ulp_and_train(rounding, dtype):
    x = torch.randn(2, 2, 8, 8, dtype=dtype)
    for module in PRODUCTS.values():
        if isinstance(module, nn.Module):
            module.to(dtype)
    exact = products(x)
    with rounding.during('a test'):
        x.requires_grad_()
        rounded = products(x)
        sum(result.sum() for result in rounded.values()).backward()
    assert x.grad.isfinite().all()
    assert x.grad.any()
    for name, result in rounded.items():
        error = (result - exact[name]).abs().max() / exact[name].abs().max()
        # A recurrence rounds sixteen products one after another.
        assert 0 < error <= 16 * ULPS * torch.finfo(dtype).eps, name


def test_each_call_draws_anew_and_a_seed_repeats_all(rounding):
    x = torch.randn(8, 8)

    def two_products(seed, key='a test'):
        rounding.seed = seed
        with rounding.during(key):
            first = x @ x
            second = x @ x
        return first, second

    first, second = two_products(seed=0)
    assert not torch.equal(first, second)
    again = two_products(seed=0)
    assert torch.equal(first, again[0])
    assert torch.equal(second, again[1])
    assert not torch.equal(first, two_products(seed=1)[0])
    assert not torch.equal(first, two_products(seed=0, key='another test')[0])


def test_a_bitwise_test_gets_the_same_bits_again_but_not_those_of_torch(rounding):
    x = torch.randn(8, 8)
    exact = x @ x
    with rounding.during('a test', repeatable=True):
        first = x @ x
        second = x @ x
        doubled = (2 * x) @ x
    assert torch.equal(first, second)
    assert not torch.equal(first, exact)
    assert not torch.equal(doubled, 2 * first)
    assert torch.equal(x @ x, exact)


@pytest.mark.parametrize('method', ['fold', 'absorb'])
def test_nothing_above_the_kernels_takes_another_path(rounding, method):
    block = LLMBlock(arch=FAMILIES['opt'])
    mapper = nn.Linear(8, block.embed_dims, bias=False)
    with rounding.during('a test'):
        chosen = block.choose_low_rank(
            mapper, torch.randn(2, 5, 8), slice(0, 1), method
        )
    assert chosen == method
