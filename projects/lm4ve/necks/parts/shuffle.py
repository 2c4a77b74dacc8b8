"""A control: the block reads a sample's tokens in random order."""

import torch
from torch import Tensor

from lm4ve.blocks.tokens import Queries
from lm4ve.necks.parts.part import Part, Request, Step


class TokenShuffle(Part):
    """Shuffles the tokens of each sample: anew in training, in a fixed order otherwise.

    Args:
        extra (int): How many class and register tokens keep their places.
    """

    def __init__(self, extra: int) -> None:
        self.extra = extra

    def before(self, request: Request, step: Step) -> Request:
        """Shuffle tokens and padding mask, and set the queries to the tokens' new places.

        So the block's outputs come in the order of the encoder's tokens.
        """
        tokens = request.tokens
        order = self.draw(tokens, step.training)
        padding_mask = request.padding_mask
        if padding_mask is not None:
            padding_mask = padding_mask.gather(1, order)
        return request._replace(
            tokens=tokens.gather(1, order[..., None].expand_as(tokens)),
            padding_mask=padding_mask,
            queries=new_places(order, request.queries),
        )

    def draw(self, tokens: Tensor, training: bool) -> Tensor:
        """Draw which token comes to which place.

        Args:
            tokens (Tensor): ``[B, N, C]``.
            training (bool): Draw another order for each sample, and in each step.

        Returns:
            Tensor: int64 ``[B, N]``.
        """
        batch, n, _ = tokens.shape
        device = tokens.device
        count = n - self.extra
        if training:
            keys = torch.rand(batch, count, device=device)
        else:
            generator = torch.Generator().manual_seed(n)
            keys = torch.rand(count, generator=generator)
            keys = keys.to(device).expand(batch, -1)
        first = torch.arange(self.extra, device=device).expand(batch, -1)
        rest = self.extra + keys.argsort(dim=1)
        return torch.cat([first, rest], dim=1)


def new_places(order: Tensor, queries: Queries) -> Tensor:
    """Return where the tokens that are read stand now.

    Args:
        order (Tensor): Which token came to which place, ``[B, N]``.
        queries: The tokens that are read, by their places before.

    Returns:
        Tensor: int64 ``[B, Q]``.
    """
    places = order.argsort(dim=1)
    if queries is None:
        return places
    if isinstance(queries, slice):
        return places[:, queries]
    return places.gather(1, queries)
