"""The attention masks of a block: causal, causal suffix, window, soft, and padding.

The paper's block has none: each token attends to all tokens that are not padding. A
mask is bool ``[B or 1, 1, Q or 1, N]``, True where a query may look; None lets every
query look everywhere. A soft mask has factors of the attention weights instead.
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
        causal_suffix (int): How many of the last tokens are causal, while those before
            them see one another.

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
        not_padding: Tensor | None,
        queries: Queries,
        window: Window | None,
        training: bool,
    ) -> Tensor | None:
        """Build the mask of a layer.

        Args:
            x (Tensor): All tokens, ``[B, N, D]``, for their number and device.
            not_padding (Tensor, optional): The mask of :func:`mask_of_padding`.
            queries: The tokens that the layer computes.
            window (Window, optional): The layer's window.
            training (bool): Whether the block is in training mode, in which a soft mask
                is as open as its progress says. In evaluation it is closed.

        Returns:
            Tensor | None: Bool ``[B or 1, 1, Q or 1, N]``, True where a query may look;
            None: every query looks everywhere. Of a soft mask factors in float.
        """
        if not self.causal and not self.causal_suffix and window is None:
            return not_padding
        visible = self._visible_by_position(x, queries, window)
        if self.soft is not None:
            return self.soft(visible, not_padding, training)
        if not_padding is None:
            return visible
        return visible & not_padding

    def _visible_by_position(
        self, x: Tensor, queries: Queries, window: Window | None
    ) -> Tensor:
        """Return which tokens each query may see by their positions, whether padding or not.

        Args:
            x (Tensor): All tokens, ``[B, N, D]``.
            queries: The tokens that the layer computes.
            window (Window, optional): The layer's window.

        Returns:
            Tensor: Bool ``[1, 1, Q, N]``; ``[B, 1, Q, N]`` if ``queries`` are indices.
        """
        count = x.shape[1]
        # The tokens that every query sees: those before a causal suffix. A block that
        # is not causal at all has an empty suffix.
        prefix_length = count - self.causal_suffix
        if self.causal:
            prefix_length = 0
        key_positions = torch.arange(count, device=x.device)
        positions = positions_of(queries, key_positions)  # [B or 1, 1, Q, 1]
        is_earlier_or_same = positions >= key_positions
        visible = is_earlier_or_same | (key_positions < prefix_length)
        if window is None:
            return visible
        if window.chunked:
            chunks = positions // window.width
            return visible & (chunks == key_positions // window.width)
        distance = (positions - key_positions).abs()
        return visible & (distance < window.width)


def positions_of(queries: Queries, all_positions: Tensor) -> Tensor:
    """Return the positions of queries, shaped to compare each of them with every key.

    Args:
        queries: Which tokens are queries: None (all), a slice over N, or indices ``[B,
            Q]``.
        all_positions (Tensor): The positions of all tokens, ``[N]``.

    Returns:
        Tensor: ``[B, 1, Q, 1]`` if ``queries`` are indices, else ``[1, 1, Q, 1]``.
    """
    if queries is None:
        positions = all_positions[None]
    elif isinstance(queries, slice):
        positions = all_positions[queries][None]
    else:
        positions = queries
    return positions[:, None, :, None]


def mask_of_padding(padding_mask: Tensor | None) -> Tensor | None:
    """Turn a padding mask into an attention mask by which no query sees padding.

    Args:
        padding_mask (Tensor, optional): Bool ``[B, N]``, True = padding.

    Returns:
        Tensor | None: Bool ``[B, 1, 1, N]``, True = no padding; None without a mask.
    """
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

    def __call__(
        self, visible: Tensor, not_padding: Tensor | None, training: bool
    ) -> Tensor:
        """Return the factors that attention weights are multiplied by after softmax.

        Args:
            visible (Tensor): The causal mask, bool, broadcastable to ``[B, H, Q, N]``.
            not_padding (Tensor, optional): Must be None: how a soft mask and padding
                would share one softmax is not defined.
            training (bool): In evaluation the mask is closed.

        Returns:
            Tensor: 1 where ``visible``, else a factor between 0 and 1; in its shape.

        Raises:
            UserError: There is padding, or a training step without progress.
        """
        if not_padding is not None:
            raise UserError(
                'block.causal=dict(soft=...) takes no padding. Fix: block.causal=True.'
            )
        if training and self.progress is None:
            raise UserError(
                'block.causal=dict(soft=...) needs lm4ve.NeckProgressHook in '
                'custom_hooks, or neck.set_progress(step / steps) before each step.'
            )
        return visible + ~visible * self._factor(training)

    def _factor(self, training: bool) -> float:
        """Return the factor of later tokens' weights, from 1 (open) to 0 (closed)."""
        if not training or self.progress is None:
            return 0.0
        return max(0.0, 1 - self.progress / self.end)


def _end_of(soft: float) -> float:
    """Return the only field of ``causal``; it gives :func:`build_from` the field's name."""
    return soft
