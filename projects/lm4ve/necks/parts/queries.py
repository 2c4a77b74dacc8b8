"""Few tokens that read all others, for ``out_type='query'``."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lm4ve.blocks.tokens import Queries, refuse_empty_samples, refuse_samples
from lm4ve.errors import UserError, build_from, check
from lm4ve.necks.layouts import mean_of_tokens
from lm4ve.necks.parts.part import Part, Request, Step
from lm4ve.necks.record import NeckRecord


@dataclass(frozen=True)
class QueryFields:
    """The fields of ``queries``. A checkpoint records them all.

    Attributes:
        learned (int): How many learned tokens, 0 to 16 (CaiT's class attention,
            V-JEPA's attentive probe).
        mean (bool): The mean of the tokens.
        max (bool): Their maximum in each channel.
        cls_token (bool): The encoder's own class token beside them.
        keys (bool): The queries also serve as keys and values. With ``causal_suffix``
            of the block each reads those before it (DeepSeek-OCR 2); without, each
            reads all.
        join (str): 'mean' over the queries' outputs, ``[B, C]``; or 'concat', ``[B, Q *
            C]``: the class token, learned ones, mean, maximum.
    """

    learned: int = 0
    mean: bool = False
    max: bool = False
    cls_token: bool = False
    keys: bool = False
    join: str = 'mean'

    def __post_init__(self) -> None:
        check('neck.queries.learned', self.learned, kind=int, least=0, most=16)
        check('neck.queries.mean', self.mean, choices=(True, False))
        check('neck.queries.max', self.max, choices=(True, False))
        check('neck.queries.cls_token', self.cls_token, choices=(True, False))
        check('neck.queries.keys', self.keys, choices=(True, False))
        check('neck.queries.join', self.join, choices=('mean', 'concat'))
        if self.count == 0:
            raise UserError(
                'neck.queries names none. Fix: learned=1, mean=True or max=True.'
            )

    @property
    def count(self) -> int:
        """How many tokens are added, K."""
        return self.learned + int(self.mean) + int(self.max)


def parse_queries(fields: Any) -> QueryFields | None:
    """Parse the field ``queries``; None where it is left out.

    Raises:
        UserError: It is no dict, or a field has no such value.
    """
    if fields is None:
        return None
    return build_from(QueryFields, fields, 'neck.queries')


class QueryTokens(nn.Module, Part):
    """Adds queries after an encoder's tokens, and asks for these alone.

    It is a module because of its learned tokens, ``query.tokens`` in a checkpoint.

    Args:
        fields (QueryFields): Which queries.
        channels (int): C.
        extra (int): How many class and register tokens come first.
        block (nn.Module): The block that reads them.
    """

    def __init__(
        self, fields: QueryFields, channels: int, extra: int, block: nn.Module
    ) -> None:
        super().__init__()
        self.fields = fields
        self.extra = extra
        source: Any = getattr(block, 'source', {})
        # Whether the block counts the tokens between a query and a key.
        self.is_placed = bool(source.get('rotary') or source.get('window'))
        if fields.learned:
            start = torch.empty(fields.learned, channels)
            nn.init.trunc_normal_(start, std=0.02)
            self.tokens = nn.Parameter(start)

    def before(self, request: Request, step: Step) -> Request:
        """Append the queries to the tokens, and let the block compute only the queries."""
        tokens, padding_mask = self(request.tokens, request.padding_mask)
        queries = self._places_after(request.tokens)
        return request._replace(
            tokens=tokens, padding_mask=padding_mask, queries=queries
        )

    def add_to(self, record: NeckRecord) -> None:
        """Record the fields."""
        record.queries = asdict(self.fields)

    def forward(
        self, tokens: Tensor, padding_mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Append K queries to the tokens: learned ones, the mean, the maximum.

        Args:
            tokens (Tensor): ``[B, N, C]``.
            padding_mask (Tensor, optional): Bool ``[B, N]``, True = padding.

        Returns:
            tuple[Tensor, Tensor | None]: ``[B, N + K, C]``, and their padding mask.

        Raises:
            UserError: Padding lies between tokens and queries of a block that counts
                places, or leaves nothing to average.
        """
        tokens = self._refuse_gaps(tokens, padding_mask)
        batch = tokens.shape[0]
        patches = tokens[:, self.extra :]
        pieces = [tokens]
        if self.fields.learned:
            learned = self.tokens.to(tokens.dtype)
            pieces.append(learned.expand(batch, -1, -1))
        if self.fields.mean:
            mean = mean_of_tokens(patches, padding_mask, self.extra)
            pieces.append(mean[:, None])
        if self.fields.max:
            largest = max_of_tokens(patches, padding_mask, self.extra)
            pieces.append(largest[:, None])
        longer = torch.cat(pieces, dim=1)
        return longer, self._extend_mask(padding_mask, tokens)

    def _places_after(self, tokens: Tensor) -> Queries:
        """Return which tokens the block computes after the queries have been appended.

        Those are the queries, and before them the class token if the fields ask for it.

        Args:
            tokens (Tensor): ``[B, N, C]``, before the queries were appended.
        """
        batch, n, _ = tokens.shape
        if not self.fields.cls_token:
            return slice(n, None)
        # Made on the device: a list would be copied to it, for which the CPU waits.
        class_token = torch.zeros(1, dtype=torch.int64, device=tokens.device)
        queries = torch.arange(n, n + self.fields.count, device=tokens.device)
        return torch.cat([class_token, queries]).expand(batch, -1)

    def _extend_mask(
        self, padding_mask: Tensor | None, tokens: Tensor
    ) -> Tensor | None:
        """Extend a padding mask (True = padding) by K entries for the queries.

        Unless the queries are keys too, they are marked as padding, so that no token
        attends to them.

        Args:
            padding_mask (Tensor, optional): Bool ``[B, N]``.
            tokens (Tensor): ``[B, N, C]``, before the queries were appended.

        Returns:
            Tensor | None: Bool ``[B, N + K]``; None if nothing is padded or hidden.
        """
        batch, n, _ = tokens.shape
        if padding_mask is None:
            if self.fields.keys:
                return None
            padding_mask = tokens.new_zeros(batch, n, dtype=torch.bool)
        is_hidden = not self.fields.keys
        added = padding_mask.new_full((batch, self.fields.count), is_hidden)
        return torch.cat([padding_mask, added], dim=1)

    def _refuse_gaps(self, tokens: Tensor, padding_mask: Tensor | None) -> Tensor:
        """Refuse padding between tokens and queries where the block counts places.

        Returns:
            Tensor: ``tokens``; see :func:`lm4ve.blocks.tokens.refuse_samples`.
        """
        if padding_mask is None or not self.is_placed:
            return tokens
        reason = (
            "neck.out_type='query' comes after padding, and block.rotary or a window "
            'counts the tokens between. Fix: block.rotary=False and window=False, or no '
            'padding.'
        )
        return refuse_samples(tokens, padding_mask[:, -1], reason)


def max_of_tokens(x: Tensor, padding_mask: Tensor | None, extra: int) -> Tensor:
    """Return the maximum of each channel over the tokens that are not padding.

    Args:
        x (Tensor): ``[B, N, C]``.
        padding_mask (Tensor, optional): Bool ``[B, extra + N]``, True = padding.
        extra (int): How many tokens stood before those of ``x``, which the mask counts.

    Returns:
        Tensor: ``[B, C]``.

    Raises:
        UserError: All tokens of a sample are padding; see
            :func:`lm4ve.blocks.tokens.refuse_samples`.
    """
    if padding_mask is not None:
        padded = padding_mask[:, extra:]
        smallest = torch.finfo(x.dtype).min
        x = x.masked_fill(padded[..., None], smallest)
        x = refuse_empty_samples(x, padded)
    return x.amax(dim=1)
