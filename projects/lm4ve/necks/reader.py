"""From an encoder's features to tokens, and back."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor

from lm4ve.errors import check
from lm4ve.necks.layouts import is_exported, refuse_ambiguous, to_tokens


class Features(NamedTuple):
    """An encoder's features as tokens.

    Attributes:
        tokens (Tensor): ``[B, N, C]``.
        is_map (bool): Whether they came as a map, such as ``[B, C, H, W]``.
        restore (Callable): Brings ``[B, N, C]`` back to the layout they came in.
    """

    tokens: Tensor
    is_map: bool
    restore: Callable[[Tensor], Tensor]


class FeatureReader:
    """Reads the features of one layer in any layout, and writes them back.

    Args:
        channels (int): C.
        layout (str, optional): A letter for each dimension. None: by their number.
        index (int): Which entry of a sequence is read.
        keep_others (bool): Return the whole sequence, with that entry replaced.

    Attributes:
        ruled_out (set[str]): The layouts that the features do not have where none is
            named, since earlier features did not fit them, or a model of ours said so.
            A later batch may be as long as it is wide.
    """

    def __init__(
        self, channels: int, layout: str | None, index: int, keep_others: bool
    ) -> None:
        self.channels = channels
        self.layout = layout
        self.index = index
        self.keep_others = keep_others
        self.ruled_out: set[str] = set()

    def pick(self, feats: Tensor | Sequence[Tensor]) -> Tensor:
        """Return the features that the neck uses: entry :attr:`index` of a sequence.

        A tensor is returned as it is.

        Raises:
            UserError: The sequence has no entry :attr:`index`.
        """
        if isinstance(feats, Tensor):
            return feats
        count = len(feats)
        field = f'neck.index of {count} feature maps'
        check(field, self.index, least=-count, most=count - 1)
        return feats[self.index]

    def read(self, feats: Tensor | Sequence[Tensor]) -> Features:
        """Turn features into tokens.

        Args:
            feats (Tensor | Sequence[Tensor]): In :attr:`layout`, or a sequence of such.

        Raises:
            UserError: Another width or number of dimensions, no such entry, or no named
                layout of features that fit several.
        """
        x = self.pick(feats)
        tokens, restore = to_tokens(x, self.channels, self.layout)
        if self.layout is None and not is_exported():
            refuse_ambiguous(x, self.channels, self.ruled_out)
        return Features(tokens, is_map=x.dim() > 3, restore=restore)

    def write(
        self, out: Tensor, features: Features, feats: Tensor | Sequence[Tensor]
    ) -> Tensor | tuple[Tensor, ...]:
        """Return an output in the form in which the host gave its features.

        Args:
            out (Tensor): Tokens ``[B, Q, C]``, which get the layout of the input, or a
                vector for each sample, ``[B, C]``, which stays as it is.
            features (Features): What :meth:`read` returned.
            feats (Tensor | Sequence[Tensor]): What :meth:`read` was given.
        """
        is_vector = out.dim() == 2
        if not is_vector:
            out = features.restore(out)
        if isinstance(feats, Tensor):
            return out
        if not self.keep_others:
            return (out,)
        maps = list(feats)
        maps[self.index] = out
        return tuple(maps)
