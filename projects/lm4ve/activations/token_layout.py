"""Where tokens are: on an image's grid, a clip's, in a cloud or in a scene.

Hooks give plain ``[B, N, C]`` or maps; to draw them or to compare them with a mask
one has to know which token is where. Every task's rule is here.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lm4ve.errors import UserError

KINDS = ('image', 'video', 'pointcloud', 'motion')


@dataclass(frozen=True)
class Layout:
    """The places of a model's tokens.

    Attributes:
        kind (str): One of :data:`KINDS`.
        prefix (int): Tokens before the placed ones (class token).
        grid (tuple[int, ...]): (rows, columns) of an image, (times, rows,
            columns) of a clip, (groups, ) of a cloud, (agents, lanes) of a scene.
        padding_mask (Tensor, optional): Bool ``[B, N]`` of the placed tokens.
    """

    kind: str
    prefix: int
    grid: tuple[int, ...]
    padding_mask: Tensor | None = None

    @property
    def num_placed(self) -> int:
        """Number of tokens that have a place."""
        if self.kind == 'motion':
            return sum(self.grid)
        return math.prod(self.grid)


def kind_of(inputs: Any) -> str:
    """Name the task by what the model takes.

    Args:
        inputs (Tensor | dict): The preprocessed batch: images ``[B, 3, H, W]``,
            clips ``[B, V, 3, T, H, W]``, frames ``[B, V, 3, H, W]``, clouds
            ``[B, N, 3]``, or a dict of scenes with ``agents``.

    Raises:
        UserError: It is none of these.
    """
    if isinstance(inputs, dict) and 'agents' in inputs:
        return 'motion'
    if isinstance(inputs, Tensor):
        kind = {3: 'pointcloud', 4: 'image', 5: 'video', 6: 'video'}.get(inputs.dim())
        if kind is not None:
            return kind
    found = list(inputs.shape) if isinstance(inputs, Tensor) else type(inputs)
    raise UserError(
        f'Activations are placed for images [B, 3, H, W], clips [B, V, 3, T, H, W], '
        f'frames [B, V, 3, H, W], clouds [B, N, 3] and scenes; got {found}.'
    )


def to_tokens(x: Tensor) -> tuple[Tensor, tuple[int, ...] | None]:
    """Flatten a map to ``[B, N, C]``; also return its grid (None for tokens)."""
    if x.dim() == 3:
        return x, None
    if x.dim() in (4, 5):
        return x.flatten(2).transpose(1, 2), tuple(x.shape[2:])
    raise UserError(
        'Activations must be tokens [B, N, C] or maps [B, C, H, W] or '
        f'[B, C, T, H, W], got {list(x.shape)}. Fix: name another '
        'module.'
    )


def layout_of(
    model: nn.Module, inputs: Any, count: int, grid: tuple[int, ...] | None = None
) -> Layout:
    """Find the places of ``count`` tokens.

    Args:
        model (nn.Module): Whose tokens they are.
        inputs (Tensor | dict): See :func:`kind_of`.
        count (int): N, prefix included.
        grid (tuple[int, ...], optional): The map's, where they were one.

    Raises:
        UserError: So many tokens have no place in such inputs.
    """
    kind = kind_of(inputs)
    if kind == 'motion':
        mask = torch.cat([inputs['agent_padding'], inputs['lane_padding']], dim=1)
        agents, lanes = (inputs[k].shape[1] for k in ('agent_padding', 'lane_padding'))
        # Some models have agents' tokens alone before lanes join.
        grid = (agents, 0) if count == agents else (agents, lanes)
        return _fitting(Layout(kind, 0, grid, mask[:, : sum(grid)]), count)
    backbone = getattr(model, 'backbone', model)
    if kind == 'pointcloud':
        groups = getattr(backbone, 'num_groups', count - 1)
        return _fitting(Layout(kind, count - groups, (groups,)), count)
    if grid is not None:
        return Layout(kind, 0, grid)
    prefix = getattr(backbone, 'num_extra_tokens', None)
    if prefix is None:
        prefix = int(getattr(backbone, 'cls_token', None) is not None)
    grid = getattr(backbone, 'patch_resolution', None)
    if grid is not None and math.prod(grid) == count:
        prefix = 0  # seen before the class token joins, or after it left
    placed = count - prefix
    if kind == 'image':
        if grid is None or math.prod(grid) != placed:
            grid = _factor(placed, *inputs.shape[-2:])
        return _fitting(Layout(kind, prefix, tuple(grid)), count)
    plane = getattr(backbone, 'grid_size', None)
    if plane is None or placed % math.prod(plane):
        plane = _factor(placed, *inputs.shape[-2:])
    grid = (placed // math.prod(plane), *plane)
    return _fitting(Layout(kind, prefix, grid), count)


def _factor(placed: int, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of a grid with the picture's proportions."""
    rows = max(round(math.sqrt(placed * height / width)), 1)
    return rows, placed // rows


def _fitting(layout: Layout, count: int) -> Layout:
    if layout.prefix < 0 or layout.prefix + layout.num_placed != count:
        raise UserError(
            f'{count} tokens do not fit {layout.kind} with a grid of {layout.grid} '
            f'after {max(layout.prefix, 0)} other token(s). Fix: name a module whose '
            "output is one token a place, for example 'neck:input'."
        )
    return layout
