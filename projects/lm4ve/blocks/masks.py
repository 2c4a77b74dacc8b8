"""The attention masks of a block: causal, causal suffix, window, soft, and padding.

The paper's block has none: each token attends to all tokens that are not padding. A
mask is bool ``[B or 1, 1, Q or 1, N]``, True where a query may look; None lets all look
everywhere. A soft mask has factors of the attention weights instead.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lm4ve.blocks.tokens import Queries
from lm4ve.errors import UserError, build_from, check, require


class Window(NamedTuple):
    """The tokens that a layer attends to.

    Attributes:
        width (int): It attends to the tokens at a distance below this.
        chunked (bool): It attends instead to all tokens of its own chunk of ``width``
            tokens.
        both_ways (bool): The language model itself attends to earlier and later tokens.
    """

    width: int
    chunked: bool
    both_ways: bool


class AttentionMasks:
    """Builds the masks of a block's layers.

    Args:
        causal (bool | dict): The field of :class:`lm4ve.blocks.LLMBlock`.
        causal_suffix (int): Only the last so many tokens are causal.

    Attributes:
        soft (SoftMask | None): What closes a causal mask in the course of training.

    Raises:
        UserError: A field has no such value, or they do not go together.
    """

    def __init__(self, causal: bool | dict[str, float], causal_suffix: int) -> None:
        check('block.causal_suffix', causal_suffix, kind=int, least=0)
        if causal_suffix > 0:
            require(
                causal is False,
                f'block.causal={causal} with block.causal_suffix={causal_suffix}: the '
                'first masks all tokens, the second only the last ones. Fix: leave one '
                'of them out.',
            )
        self.causal = causal
        self.causal_suffix = causal_suffix
        self.soft: SoftMask | None = None
        if not isinstance(causal, bool):
            self.soft = SoftMask(causal)

    def record(self) -> dict[str, Any]:
        """Return what a checkpoint records of the masks."""
        return dict(causal=self.causal, causal_suffix=self.causal_suffix)

    def __call__(
        self,
        x: Tensor,
        real: Tensor | None,
        queries: Queries,
        window: Window | None,
        training: bool,
    ) -> Tensor | None:
        """Build the mask of a layer.

        Args:
            x (Tensor): The tokens, ``[B, N, D]``.
            real (Tensor, optional): The mask of :func:`mask_of_padding`.
            queries: The tokens that the layer computes.
            window (Window, optional): The layer's.
            training (bool): Whether a soft mask is open.

        Returns:
            Tensor | None: See the top of this file.
        """
        if not self.causal and not self.causal_suffix and window is None:
            return real
        seen = self._visible(x, queries, window)
        if self.soft is not None:
            return self.soft(seen, real, training)
        if real is None:
            return seen
        return seen & real

    def _visible(self, x: Tensor, queries: Queries, window: Window | None) -> Tensor:
        """Return which tokens queries see, padding included: bool ``[B or 1, 1, Q, N]``."""
        count = x.shape[1]
        prefix = 0 if self.causal else count - self.causal_suffix
        keys = torch.arange(count, device=x.device)
        places = places_of(queries, keys)
        visible = (places >= keys) | (keys < prefix)
        if window is None:
            return visible
        if window.chunked:
            return visible & (places // window.width == keys // window.width)
        return visible & ((places - keys).abs() < window.width)


def places_of(queries: Queries, keys: Tensor) -> Tensor:
    """Return the places of queries among the tokens, ``[B or 1, 1, Q, 1]``.

    Args:
        queries: See :data:`lm4ve.blocks.tokens.Queries`.
        keys (Tensor): The places of all tokens, ``[N]``.
    """
    if queries is None:
        places = keys[None]
    elif isinstance(queries, slice):
        places = keys[queries][None]
    else:
        places = queries
    return places[:, None, :, None]


def mask_of_padding(padding_mask: Tensor | None) -> Tensor | None:
    """Turn a padding mask, bool ``[B, N]``, into an attention mask ``[B, 1, 1, N]``."""
    if padding_mask is None:
        return None
    return ~padding_mask[:, None, None, :]


class SoftMask:
    """A causal mask that closes while the model trains (iLLaMA, arXiv 2404.06773).

    A later token's attention weight is multiplied, after softmax, by a factor that
    falls linearly from 1 to 0; in evaluation it is 0. What remains is not scaled to a
    sum of 1.

    Args:
        fields (Mapping): ``soft``, the part of training after which the factor is 0.

    Attributes:
        progress (float | None): How far training has come, in [0, 1].

    Raises:
        UserError: A field is wrong.
    """

    def __init__(self, fields: Mapping[str, float]) -> None:
        check('block.causal', fields, kind=(bool, dict))
        self.end = build_from(_end_of, fields, 'block.causal')
        check('block.causal.soft', self.end, kind=(int, float), above=0, most=1)
        self.progress: float | None = None

    def __call__(self, seen: Tensor, real: Tensor | None, training: bool) -> Tensor:
        """Return the factors.

        Args:
            seen (Tensor): Bool, broadcastable to ``[B, H, Q, N]``, of the causal mask.
            real (Tensor, optional): Must be None: with padding, what softmax sums is
                unclear.
            training (bool): Else the mask is closed.

        Raises:
            UserError: There is padding, or a training step without progress.
        """
        if real is not None:
            raise UserError(
                'block.causal=dict(soft=...) takes no padding. Fix: block.causal=True.'
            )
        if training and self.progress is None:
            raise UserError(
                'block.causal=dict(soft=...) needs lm4ve.NeckProgressHook in '
                'custom_hooks, or neck.set_progress(step / steps) before each step.'
            )
        return seen + ~seen * self._factor(training)

    def _factor(self, training: bool) -> float:
        """Return the factor of later tokens' weights."""
        if not training or self.progress is None:
            return 0.0
        return max(0.0, 1 - self.progress / self.end)


def _end_of(soft: float) -> float:
    """Return the only field of ``causal``."""
    return soft
