"""Where the tokens of a model lie in its input, and attention between named places."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from lm4ve.errors import UserError

#: Which query of an attention to show: its index, an index for each sample (int64
#: ``[B]``), or None for the mean over all queries that are not padding.
Row = int | Tensor | None


@dataclass(frozen=True)
class Layout:
    """The places of a model's tokens.

    Attributes:
        kind (str): The task's name.
        prefix (int): Tokens before the placed ones (class token).
        grid (tuple[int, ...]): (rows, columns) of an image, (times, rows,
            columns) of a clip, (groups, ) of a cloud, (agents + lanes, ) of a scene.
        padding_mask (Tensor, optional): Bool ``[B, N]`` of the placed tokens.
    """

    kind: str
    prefix: int
    grid: tuple[int, ...]
    padding_mask: Tensor | None = None

    @property
    def num_placed(self) -> int:
        """The number of tokens that have a place."""
        return math.prod(self.grid)

    @property
    def times(self) -> int:
        """The number of times on a clip's grid; else 1."""
        return self.grid[0] if len(self.grid) == 3 else 1

    def fitting(self, count: int) -> 'Layout':
        """Return this layout after a check that it fits a number of tokens.

        Args:
            count (int): The number of tokens, prefix included.

        Raises:
            UserError: It has places for another number of tokens.
        """
        if self.prefix < 0 or self.prefix + self.num_placed != count:
            raise UserError(
                f'{count} tokens do not fit {self.kind} with a grid of {self.grid}.'
            )
        return self


@dataclass(frozen=True)
class Rows:
    """Attention of several rows, each of which has a name.

    Attributes:
        weights (Tensor): ``[B, R, N]`` over all tokens of the layout, its prefix
            included; rows that a sample does not have are 0 and come last.
        titles (list[list[str]]): The names of each sample's rows, at most R.
        layout (Layout): The places of the N tokens.
    """

    weights: Tensor
    titles: list[list[str]]
    layout: Layout


@dataclass(frozen=True)
class Watched:
    """An attention of one task alone, such as one from words to an image.

    Attributes:
        label (str): Its name on a sheet.
        module (str): The name of the module that computes it.
        read (Callable): ``(module, inputs, arguments) -> Rows``: from the module, the
            preprocessed batch and what the module was called with, by name.
        row (str): Whose attention it is, or what was done with heads.
    """

    label: str
    module: str
    read: Callable[[nn.Module, Any, Mapping[str, Any]], Rows]
    row: str = 'mean over heads'


def prefix_of(backbone: nn.Module, count: int) -> int:
    """Return how many of a backbone's ``count`` tokens come before the patches."""
    grid = getattr(backbone, 'patch_resolution', None)
    if grid is not None and math.prod(grid) == count:
        # These tokens are from before the class token joins, or from after it left.
        return 0
    num_extra_tokens = getattr(backbone, 'num_extra_tokens', None)
    if num_extra_tokens is not None:
        return int(num_extra_tokens)
    if getattr(backbone, 'cls_token', None) is not None:
        return 1
    return 0


def proportional_grid(placed: int, height: int, width: int) -> tuple[int, int]:
    """Return rows and columns of a grid with the picture's proportions."""
    rows = max(round(math.sqrt(placed * height / width)), 1)
    return rows, placed // rows
