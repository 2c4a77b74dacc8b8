"""Position tables of vision transformers, for images of another size than in pre-training."""

import torch
import torch.nn.functional as F
from torch import Tensor

from lm4ve.errors import UserError


def resize_grid(table: Tensor, count: int) -> Tensor:
    """Resize a table of positions bicubically, as METER does when it loads one.

    Args:
        table (Tensor): ``[P + G * G, C]`` or ``[1, P + G * G, C]``: P prefix tokens (0 or
            1), then a square grid.
        count (int): The number of positions wanted.

    Returns:
        Tensor: ``[P + H * H, C]`` with H * H + P = ``count``, in the layout that came in.

    Raises:
        UserError: One of the numbers is no square with a class token or without.
    """
    rows = table[0] if table.dim() == 3 else table
    for prefix in (1, 0):
        before, after = round((len(rows) - prefix) ** 0.5), round((count - prefix) ** 0.5)
        if before**2 + prefix == len(rows) and after**2 + prefix == count:
            break
    else:
        raise UserError(
            f'A position table of {len(rows)} rows cannot be resized to {count}: these are no '
            'square grids. Fix: use square images and an encoder of square patches.'
        )
    grid = rows[prefix:].float().unflatten(0, (before, before)).permute(2, 0, 1)[None]
    grid = F.interpolate(grid, size=(after, after), mode='bicubic', align_corners=False)
    out = torch.cat((rows[:prefix].float(), grid[0].flatten(1).T)).to(table.dtype)
    return out[None] if table.dim() == 3 else out
