"""How far two computations of the same thing may lie apart: a bound from dtype and sizes.

A tolerance chosen by hand holds on the machine where it was chosen. Compare in float64
where the code allows it, with torch's own tolerance of 1e-7, a billion times the
rounding there. Where the code computes in fewer bits by design, compare with
:func:`rounding_bound`.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from lm4ve.blocks import frozen_tensors


def rounding_bound(dtype: torch.dtype, sums: Iterable[int]) -> float:
    """Bound the relative error of matrix products one after another.

    A product that sums K terms rounds each sum in its accumulator, which is of 32 bits
    or more, and then the result: ``K eps(accumulator) + eps(dtype)``, twice Higham's
    ``gamma_K`` (Accuracy and Stability of Numerical Algorithms, section 3.1). The
    errors of a chain add up, to first order and where nothing cancels.

    Args:
        dtype (torch.dtype): What the products return.
        sums (Iterable[int]): K of each product on the longest way through the
            computation.
    """
    accumulator = torch.promote_types(dtype, torch.float32)
    eps_of_sums = torch.finfo(accumulator).eps
    eps = torch.finfo(dtype).eps
    return sum(eps + size * eps_of_sums for size in sums)


def sums_of(module: nn.Module) -> list[int]:
    """Return how many terms the products of a module sum, those that run side by side included.

    A matrix is taken for as large in both directions, and an attention has two products
    for the four of its projections: each weight counts twice.
    """
    return 2 * [size for size, _ in products_of(module)]


def products_of(module: nn.Module) -> list[tuple[int, torch.dtype]]:
    """Return how many terms each weight's product sums, and the weight's dtype."""
    products = []
    for part in module.modules():
        for weight in part.parameters(recurse=False):
            if isinstance(part, _ConvNd):
                products.append((weight[0].numel(), weight.dtype))
            elif weight.dim() > 1:
                products.append((max(weight.shape[-2:]), weight.dtype))
    for weight in frozen_tensors(module).values():
        if weight.dim() > 1:
            products.append((max(weight.shape[-2:]), weight.dtype))
    return products


def rounding_bound_of(module: nn.Module) -> float:
    """Bound the relative error of a forward pass in which each part computes in its dtype."""
    sums_by_dtype: dict[torch.dtype, list[int]] = {}
    for size, dtype in products_of(module):
        sums_by_dtype.setdefault(dtype, []).append(size)
    bound = 0.0
    for dtype, sums in sums_by_dtype.items():
        bound += rounding_bound(dtype, 2 * sums)
    return bound


def assert_equal_but_for_rounding(
    found: Tensor, expected: Tensor, model: nn.Module, dtype: torch.dtype | None = None
) -> None:
    """Two results of a model lie within :func:`rounding_bound`, by their norms.

    ``dtype`` is the fewest bits in which the model computes; ``found``'s if it is not
    named.
    """
    assert found.shape == expected.shape
    bound = rounding_bound(dtype or found.dtype, sums_of(model))
    expected = expected.double()
    error = (found.double() - expected).norm() / expected.norm()
    assert error <= bound, f'the relative error is {error:.2e}, the bound {bound:.2e}'
