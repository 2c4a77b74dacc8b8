"""Two necks with the same weights compute the same output and gradients."""

import torch

from lm4ve.blocks import frozen_tensors
from tests.helpers.closeness import rounding_bound

C = 8
D = 32

#: Padding in the first of two samples.
MASK = torch.tensor([[False] * 3 + [True] * 2, [False] * 5])

#: The sums on the longest way through a block of two layers: the mappers, and of each
#: layer a projection, scores, weighted values, the output's projection and the MLP;
#: twice for gradients.
LAYER_SUMS = [D, D, 5, D, D, 2 * D]
SUMS = 2 * [C, *LAYER_SUMS, *LAYER_SUMS, D]


def assert_same(pair, x, dtype=None, **kwargs):
    """Assert that output and every gradient of two necks are equal.

    Args:
        pair (Sequence[nn.Module]): The neck that computes plainly, and the other one.
        x (Tensor): ``[B, N, C]``.
        dtype (torch.dtype, optional): See below.
        **kwargs: Passed to both necks, such as ``padding_mask``.

    They are computed in float64, where the rounding of the norms remains, which
    transformers computes in float32; with ``dtype``, as they are, and equal to the
    rounding of that.
    """
    has_experts = any('experts' in name for name in frozen_tensors(pair[0]))
    if has_experts and dtype is None:
        dtype = torch.float32  # torch has no grouped product in float64
    plain, other = pair
    expected = output_and_gradients(plain, x, dtype is None, **kwargs)
    found = output_and_gradients(other, x, dtype is None, **kwargs)
    bound = rounding_bound(dtype or torch.float32, SUMS)
    for name, value in expected.items():
        # (A key bias has no gradient but rounding: softmax does not see it.)
        error = (found[name] - value).norm() / value.norm().clamp_min(1e-2)
        assert error < bound, (name, error)


def output_and_gradients(neck, x, in_float64: bool, **kwargs) -> dict:
    """Return a neck's output, and the gradients of its input and its parameters."""
    neck.zero_grad()
    if in_float64:
        neck.double()
        x = x.double()
    x = x.detach().clone().requires_grad_()
    out = neck(x, **kwargs)
    direction = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    (out * direction).sum().backward()
    result = dict(out=out, x=x.grad)
    for name, parameter in neck.named_parameters():
        if parameter.requires_grad:
            result[name] = parameter.grad
    if in_float64:
        neck.float()
    return result


def tokens(seed: int = 2) -> torch.Tensor:
    """Return the same random tokens of two samples every time, ``[2, 5, C]``."""
    return torch.randn(2, 5, C, generator=torch.Generator().manual_seed(seed))
