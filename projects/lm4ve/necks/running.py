"""How a neck runs its path: compiled, with recomputation, or module by module."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import torch
from mmengine.model import BaseModule
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lm4ve.blocks.tokens import Queries, take_tokens
from lm4ve.errors import check
from lm4ve.necks.path import PathParts, low_rank_path, paper_path


class RunsPath(BaseModule):  # type: ignore[misc]
    """A module that runs the path of :meth:`path_parts`.

    Args:
        with_cp (bool): Recompute the path in the backward pass, store no activations.
        compile (bool | dict): Run the path through ``torch.compile``, with these
            options.
        init_cfg (dict | list, optional): Passed to MMEngine's ``BaseModule``.

    Attributes:
        compile_options (dict, optional): None: do not compile.
    """

    # The compiled path, once it has run; and whether the path is observed, see observe.
    _compiled: Callable[..., Tensor] | None
    _observed: bool

    def __init__(
        self, with_cp: bool, compile: bool | dict[str, Any], init_cfg: Any
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.with_cp = with_cp
        self.compile_options = parse_compile(compile)
        self._compiled = None
        self._observed = False

    def path_parts(self) -> PathParts:
        """Return the modules of the path, as they are now."""
        raise NotImplementedError

    def run(
        self, tokens: Tensor, padding_mask: Tensor | None, queries: Queries
    ) -> Tensor:
        """Run the path: mapper, block, mapper and residuals.

        It is compiled or recomputed if the fields say so. While the path is observed,
        all tokens are computed by modules.

        Args:
            tokens (Tensor): ``[B, N, C]``.
            padding_mask (Tensor, optional): Bool ``[B, N]``, True = padding.
            queries: The tokens to compute.

        Returns:
            Tensor: ``[B, Q, C]``.
        """
        if self._observed:
            every_token = paper_path(tokens, padding_mask, None, self.path_parts())
            return take_tokens(every_token, queries)
        function = self._compute
        # An export traces what would be compiled.
        if self.compile_options is not None and not torch.compiler.is_exporting():
            function = self._compile(self.compile_options)
        if self.with_cp and torch.is_grad_enabled():
            out: Tensor = checkpoint(
                function, tokens, padding_mask, queries, use_reentrant=False
            )
            return out
        return function(tokens, padding_mask, queries)

    @contextmanager
    def observe(self) -> Iterator[Self]:
        """Compute every token, and run each part as a module, inside this context.

        So forward hooks see what would otherwise be folded, compiled or not computed.
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
        """Run the path with the fewest operations; the arguments are those of :meth:`run`."""
        return low_rank_path(tokens, padding_mask, queries, self.path_parts())

    def _compile(self, options: dict[str, Any]) -> Callable[..., Tensor]:
        """Return :meth:`_compute` compiled, which is done at the first call."""
        if self._compiled is None:
            self._compiled = torch.compile(self._compute, **options)
        return self._compiled

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for copies and pickles, without the compiled method.

        That belongs to its module: copies, such as an EMA's, compile their own.
        """
        state = dict(super().__getstate__())
        state['_compiled'] = None
        return state


def parse_compile(compile: bool | dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the options of ``torch.compile``; None: do not compile.

    Raises:
        UserError: The field ``compile`` is neither a bool nor a dict.
    """
    if compile is None or compile is False:
        return None
    check('neck.compile', compile, kind=(bool, dict))
    if compile is True:
        return {}
    return compile
