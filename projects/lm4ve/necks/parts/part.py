"""What a variant can do in a forward pass: change what is computed, and run around it.

A variant that computes every second token would be::

    class EverySecondToken(Part):
        def before(self, request, step):
            batch, n, _ = request.tokens.shape
            places = torch.arange(0, n, 2, device=request.tokens.device)
            return request._replace(queries=places.expand(batch, -1))

A field of the neck names it, and ``build_parts`` adds it; to try one,
``neck.add_part('every_second', EverySecondToken())`` does.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from torch import Tensor, nn

from lm4ve.blocks.tokens import Queries
from lm4ve.errors import UserError


class Request(NamedTuple):
    """What the path has to compute in a forward pass.

    Attributes:
        tokens (Tensor): ``[B, N, C]``.
        padding_mask (Tensor, optional): Padding among them, bool ``[B, N]``, True =
            padding.
        queries: Which of them are computed: None (all), a slice over N, or indices
            ``[B, Q]``.
        read_mask (Tensor, optional): Padding in the order of the encoder's tokens,
            whatever order ``tokens`` have; for the readout.
    """

    tokens: Tensor
    padding_mask: Tensor | None
    queries: Queries
    read_mask: Tensor | None


class Step(NamedTuple):
    """The forward pass that a part acts in.

    Attributes:
        training (bool): Whether the neck is in training mode.
        observed (bool): Whether somebody looks at the modules of the path, see
            :meth:`lm4ve.necks.running.RunsPath.observe`.
        parameters (Callable): Returns the neck's parameters.
    """

    training: bool
    observed: bool
    parameters: Callable[[], Iterator[nn.Parameter]]


#: Computes the tokens of a request, ``[B, Q, C]``.
Run = Callable[[Request], Tensor]


class Part:
    """A variant, which by itself changes nothing. A subclass overrides what it changes.

    Attributes:
        follows_progress (bool): Whether the part depends on how far training has come.
        progress (float, optional): How far it has come, in [0, 1]; None: unknown.
    """

    follows_progress: bool = False
    progress: float | None = None

    def before(self, request: Request, step: Step) -> Request:
        """Change what is computed, before the path runs.

        Args:
            request (Request): The neck's request, as the parts before this one have
                left it.
            step (Step): The forward pass.

        Returns:
            Request: For example one with other tokens, another order of them, or other
            queries. By default ``request``.
        """
        return request

    def around(self, run: Run, step: Step, request: Request) -> Tensor:
        """Run the path, or do something before, after or instead.

        Args:
            run (Callable): Runs the path, with the parts before this one around it.
            step (Step): The forward pass.
            request (Request): What is computed, as all parts have left it.

        Returns:
            Tensor: The computed tokens, ``[B, Q, C]``. By default those of ``run``.
        """
        return run(request)

    def add_to(self, record: dict[str, Any]) -> None:
        """Add the part's settings, which no tensor shows, to what a checkpoint records.

        A neck without the part refuses a checkpoint with a field that it does not know.

        Args:
            record (dict): The neck's record, plain data by the names of fields; changed
                in place.
        """

    def progress_in(self, step: Step) -> float:
        """Return how far training has come, 0 where that makes no difference.

        Raises:
            UserError: A training step depends on it, and nobody has set it.
        """
        if self.progress is not None:
            return self.progress
        if step.training and self.follows_progress:
            raise UserError(
                'neck.branch needs lm4ve.NeckProgressHook in custom_hooks, or '
                'neck.set_progress(step / steps) before each step.'
            )
        return 0.0
