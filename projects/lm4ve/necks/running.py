"""How a neck runs its path: plainly, with recomputation, or module by module."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import torch
from mmengine.model import BaseModule
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lm4ve.blocks.tokens import Queries, take_tokens
from lm4ve.necks.parts.part import Request
from lm4ve.necks.path import PathParts, low_rank_path, paper_path


class RunsPath(BaseModule):  # type: ignore[misc]
    """A module that runs the path of :meth:`path_parts`.

    Args:
        with_cp (bool): Recompute the path in the backward pass, store no activations.
        init_cfg (dict | list, optional): Passed to MMEngine's ``BaseModule``.
    """

    def __init__(self, with_cp: bool, init_cfg: Any) -> None:
        super().__init__(init_cfg=init_cfg)
        self.with_cp = with_cp
        # Whether somebody looks at the modules of the path, see observe.
        self._observed = False

    def path_parts(self) -> PathParts:
        """Return the modules of the path, as they are now."""
        raise NotImplementedError

    def run(self, request: Request) -> Tensor:
        """Run the path for the tokens of a request: mapper, block, mapper and residuals.

        The backward pass recomputes it if the field says so. While the path is
        observed, all tokens are computed by modules.

        Args:
            request (Request): The tokens ``[B, N, C]``, their padding, and which of them
                are computed.

        Returns:
            Tensor: ``[B, Q, C]``.
        """
        tokens, padding_mask, queries, _ = request
        if self._observed:
            every_token = paper_path(tokens, padding_mask, None, self.path_parts())
            return take_tokens(every_token, queries)
        if self.with_cp and torch.is_grad_enabled():
            out: Tensor = checkpoint(
                self._compute, tokens, padding_mask, queries, use_reentrant=False
            )
            return out
        return self._compute(tokens, padding_mask, queries)

    @contextmanager
    def observe(self) -> Iterator[Self]:
        """Compute every token, and run each part as a module, inside this context.

        So forward hooks see what would otherwise be folded or not computed.
        The result stays the same; it costs what ``low_rank='off'`` with all tokens
        costs.
        """
        before = self._observed
        self._observed = True
        try:
            yield self
        finally:
            self._observed = before

    def _compute(
        self, tokens: Tensor, padding_mask: Tensor | None, queries: Queries
    ) -> Tensor:
        """Run the path with the fewest operations, for what :meth:`run` has of a request."""
        return low_rank_path(tokens, padding_mask, queries, self.path_parts())
