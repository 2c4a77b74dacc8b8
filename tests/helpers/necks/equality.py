"""Two necks with the same weights compute the same output and gradients."""

import torch

from lm4ve.blocks import frozen_tensors
from tests.helpers.closeness import rounding_bound

C, D = 8, 32

MASK = torch.tensor([[False] * 3 + [True] * 2, [False] * 5])

#: The sums on the longest way through a block of two layers: the mappers, and of each
#: layer a projection, scores, weighted values, the output's projection and the MLP;
#: twice for gradients.
SUMS = 2 * [C, *2 * [D, D, 5, D, D, 2 * D], D]


def assert_same(pair, x, dtype=None, **kwargs):
    """Output and every gradient of two necks are equal.

    They are computed in float64, where the rounding of the norms remains, which
    transformers computes in float32; with ``dtype``, as they are, and equal to the
    rounding of that.
    """
    if any('experts' in name for name in frozen_tensors(pair[0])):
        dtype = dtype or torch.float32  # torch has no grouped product in float64
    found = []
    for neck in pair:
        neck.zero_grad()
        if dtype is None:
            neck.double()
            x = x.double()
        x = x.detach().clone().requires_grad_()
        out = neck(x, **kwargs)
        direction = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
        (out * direction).sum().backward()
        grads = {n: p.grad for n, p in neck.named_parameters() if p.requires_grad}
        found.append(dict(out=out, x=x.grad, **grads))
        if dtype is None:
            neck.float()
    bound = rounding_bound(dtype or torch.float32, SUMS)
    for name, value in found[0].items():
        # (A key bias has no gradient but rounding: softmax does not see it.)
        error = (found[1][name] - value).norm() / value.norm().clamp_min(1e-2)
        assert error < bound, (name, error)


def tokens(seed: int = 2) -> torch.Tensor:
    return torch.randn(2, 5, C, generator=torch.Generator().manual_seed(seed))
