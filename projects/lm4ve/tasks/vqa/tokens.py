"""The tokens of METER: where they lie, and how words attend to an image."""

from typing import Any

from torch import Tensor

from lm4ve.tasks.base.layouts import Layout


class WordLayout(Layout):
    """The places of tokens of words, or of an image and then words.

    Its grid is ``(words,)``, or ``(rows, columns, words)`` of a joint sequence.
    """

    @property
    def num_placed(self) -> int:
        """How many tokens have a place: all words, and all cells of the image."""
        if len(self.grid) == 1:
            return self.grid[0]
        rows, columns, words = self.grid
        return rows * columns + words

    @property
    def times(self) -> int:
        """One, since there are no frames."""
        return 1


def last_layer(fusion: Any) -> int | None:
    """Return the number of a fusion's last layer; None without layers of co-attention."""
    count = len(getattr(fusion, 'text_layers', ()))
    return count - 1 if count else None


def runs_joint(model: Any) -> bool:
    """Return whether a model's neck takes image and text in one sequence."""
    return model.neck is not None and model.tokens == 'joint'


def cross_attention(module: Any, text: Tensor, image: Tensor) -> Tensor:
    """Compute the softmax attention of words to an image again, which fused kernels drop.

    Args:
        module (nn.Module): Has ``query``, ``key`` and ``num_attention_heads``.
        text (Tensor): ``[B, L, C]``.
        image (Tensor): ``[B, N, C]``.

    Returns:
        Tensor: fp32 ``[B, L, N]``, the mean over heads.
    """
    heads = module.num_attention_heads
    query = module.query(text).unflatten(-1, (heads, -1)).transpose(1, 2).float()
    key = module.key(image).unflatten(-1, (heads, -1)).transpose(1, 2).float()
    scores = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5
    return scores.softmax(dim=-1).mean(dim=1)
