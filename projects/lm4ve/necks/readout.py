"""What the host reads of the tokens: all, the class token, or their mean.

A readout acts at two places of a forward pass: :meth:`Readout.select` chooses the
tokens that the block must compute, :meth:`Readout.after` makes the neck's output of
them.
"""

from collections.abc import Callable

from torch import Tensor

from lm4ve.blocks.tokens import Queries
from lm4ve.errors import UserError
from lm4ve.necks.fields import NeckFields
from lm4ve.necks.layouts import mean_of_tokens

#: Normalizes the channels of ``[B, Q, C]`` or ``[B, C]``.
Norm = Callable[[Tensor], Tensor]


class Readout:
    """What the readouts have in common.

    Attributes:
        out_type (str): Its name in a config.
        extra (int): How many class and register tokens it leaves out.
        takes_queries (bool): Whether the host may ask for certain tokens.
        reads_class_token (bool): Whether it needs the class token, which a map lacks.
    """

    out_type: str
    extra: int = 0
    takes_queries: bool = False
    reads_class_token: bool = False

    def check_request(self, queries: Queries, is_map: bool) -> None:
        """Refuse queries or a kind of features that the readout cannot serve.

        Args:
            queries: The tokens that the host asks for; None if it does not.
            is_map (bool): Whether the features are a map.

        Raises:
            UserError: There are queries, but they need raw tokens; or the readout needs
                a token that a map does not have.
        """
        is_asked = queries is not None
        needs_token = is_asked or self.reads_class_token or self.extra > 0
        is_refused = is_asked and not self.takes_queries
        lacks_token = is_map and needs_token
        if not (is_refused or lacks_token):
            return
        features = 'tokens'
        if is_map:
            features = 'a map'
        raise UserError(
            f"neck.out_type='{self.out_type}', num_extra_tokens={self.extra} and "
            f'queries={queries} do not go with {features}: queries need raw tokens.'
        )

    def norms_padding(self, queries: Queries) -> bool:
        """Return whether the norm is applied to every token, padding included."""
        return False

    def select(self, queries: Queries) -> Queries:
        """Choose the tokens that the block computes.

        Args:
            queries: The tokens that the host asks for; None if it does not.

        Returns:
            None (all), a slice over N, or indices ``[B, Q]``.
        """
        return queries

    def after(self, out: Tensor, read_mask: Tensor | None, norm: Norm) -> Tensor:
        """Make the neck's output.

        Args:
            out (Tensor): The tokens that the block has computed, ``[B, Q, C]``.
            read_mask (Tensor, optional): Padding among the encoder's tokens, bool ``[B,
                N]``; None: no computed token is padding.
            norm (Callable): The neck's norm.

        Returns:
            Tensor: ``[B, Q, C]`` or ``[B, C]``.
        """
        raise NotImplementedError


class RawTokens(Readout):
    """All tokens, or those that the host asks for: ``[B, Q, C]``."""

    out_type = 'raw'
    takes_queries = True

    def norms_padding(self, queries: Queries) -> bool:
        """Return whether the host reads all tokens, each of which is normalized."""
        return queries is None

    def after(self, out: Tensor, read_mask: Tensor | None, norm: Norm) -> Tensor:
        """Normalize each token: ``[B, Q, C]``."""
        return norm(out)


class ClassToken(Readout):
    """The first token, ``[B, C]``. The block's last layer computes no other."""

    out_type = 'cls_token'
    reads_class_token = True

    def select(self, queries: Queries) -> Queries:
        """Choose the first token."""
        return slice(0, 1)

    def after(self, out: Tensor, read_mask: Tensor | None, norm: Norm) -> Tensor:
        """Normalize the class token, which alone was computed: ``[B, 1, C] -> [B, C]``."""
        return norm(out)[:, 0]


class MeanOfTokens(Readout):
    """The mean over tokens, ``[B, C]``, without padding and the first ``extra`` ones.

    Args:
        extra (int): How many class and register tokens come first.
        norm_first (bool): Normalize each token, then average. Else the other way round
            (VideoMAE's ``fc_norm``).
    """

    out_type = 'avg_featmap'

    def __init__(self, extra: int, norm_first: bool) -> None:
        self.extra = extra
        self.norm_first = norm_first

    def norms_padding(self, queries: Queries) -> bool:
        """Return whether each token is normalized before the mean is taken."""
        return self.norm_first and queries is None

    def select(self, queries: Queries) -> Queries:
        """Choose all tokens but the class and register tokens."""
        if self.extra == 0:
            return queries
        return slice(self.extra, None)

    def after(self, out: Tensor, read_mask: Tensor | None, norm: Norm) -> Tensor:
        """Average the tokens that are not padding, before or after the norm: ``[B, C]``."""
        if self.norm_first:
            return mean_of_tokens(norm(out), read_mask, self.extra)
        return norm(mean_of_tokens(out, read_mask, self.extra))


def build_readout(fields: NeckFields) -> Readout:
    """Build the readout of a neck."""
    if fields.out_type == 'cls_token':
        return ClassToken()
    if fields.out_type == 'avg_featmap':
        return MeanOfTokens(fields.num_extra_tokens, fields.norm_first)
    return RawTokens()
