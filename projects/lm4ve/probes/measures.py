"""Similarity of representations, and coherence of gradients.

"Frozen language models are gradient coherence rectifiers in vision transformers" (AAAI
2025) finds that a block helps where its representation is like that of the encoder layer
beside it, and where the gradients of different samples agree more with it than without.
"""

import torch
from torch import Tensor

from lm4ve.errors import UserError


def linear_cka(x: Tensor, y: Tensor) -> float:
    """Return the linear centered kernel alignment of two representations.

    Args:
        x (Tensor): ``[n, p]``, the same n things in one representation.
        y (Tensor): ``[n, q]``, and in the other.

    Returns:
        float: In [0, 1]; 1 if one is a rotation of the other, up to scale (Kornblith et al.,
        arXiv 1905.00414, section 3).

    Raises:
        UserError: The numbers of rows differ, or a representation is constant.
    """
    if len(x) != len(y):
        raise UserError(f'linear_cka() compares the same things: {len(x)} and {len(y)} rows.')
    x, y = (t.double() - t.double().mean(dim=0) for t in (x, y))
    own = torch.linalg.norm(x.T @ x) * torch.linalg.norm(y.T @ y)
    if not own > 0:
        raise UserError(
            'linear_cka(): a representation is the same for all tokens, or not finite. Fix: look '
            'at the model; its training may have diverged.'
        )
    return float(torch.linalg.norm(x.T @ y) ** 2 / own)


class Coherence:
    """How much the gradients of single samples agree: the mean cosine of all pairs.

    Only the sum of the unit vectors is kept, so that memory does not grow with samples.
    """

    def __init__(self) -> None:
        self._sum: Tensor | None = None
        self._count = 0

    def add(self, gradient: Tensor) -> None:
        """Take the gradient of one sample, ``[p]``; one of zeros agrees with none."""
        unit = gradient.double() / gradient.double().norm().clamp_min(1e-300)
        self._sum = unit if self._sum is None else self._sum + unit
        self._count += 1

    def value(self) -> float:
        """Return the mean cosine, in [-1 / (n - 1), 1].

        Raises:
            UserError: There are fewer than two gradients.
        """
        n = self._count
        if n < 2 or self._sum is None:
            raise UserError(f'The coherence of {n} gradients is not defined. Fix: --samples 2.')
        return float((self._sum @ self._sum - n) / (n * (n - 1)))
