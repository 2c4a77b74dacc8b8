"""Pseudo-masks and their IoU, which measure whether activations pick out the foreground.

Pang et al. (arXiv 2310.12973, section 5) threshold a map of activations and compare
it with the image's segmentation, each image with the threshold that suits it best.
Their threshold is chosen with the truth in view. This tool also reports a threshold
that is fixed on other images, and the score of a map that is foreground everywhere.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import cv2
import numpy as np
from torch import Tensor

from lm4ve.analysis.activations import Analysis, Attention, Point
from lm4ve.analysis.measures import MEASURES
from lm4ve.errors import UserError, check
from lm4ve.tasks.base.layouts import Layout

THRESHOLDS = tuple(i / 10 for i in range(1, 10))
#: How a pixel mask becomes a token mask.
RULES = ('majority', 'any')
#: The activation as it is, its negative (some models light up the background), and
#: its values in random places.
AS_IS = 'as is'
INVERTED = 'inverted'
SHUFFLED = 'shuffled'
VARIANTS = (AS_IS, INVERTED, SHUFFLED)
#: A span of values up to this share of the numbers that they were computed from is
#: rounding, not structure.
_FLAT = 1e-6
#: Shares of an area are sums, which carry rounding of about this size.
_ROUNDING = 1e-9
#: The value of a mask's pixels that do not count.
IGNORED = 255

#: Measure, point and variant of a map.
Key = tuple[str, str, str]
#: The key of a map that is foreground everywhere, which needs no model.
PRIOR: Key = ('everything is foreground', '', '')


# --------------------------------------------------------------------- one image
def token_mask(
    mask: np.ndarray, grid: tuple[int, int], rule: str = 'majority'
) -> tuple[np.ndarray, np.ndarray]:
    """Bring a mask of pixels to the grid of tokens.

    Args:
        mask (np.ndarray): uint8 ``[H, W]``: 0 background, 1 foreground,
            :data:`IGNORED` not counted.
        grid (tuple[int, int]): Rows and columns, which share the area evenly.
        rule (str): 'majority': foreground is where it has at least half of the
            area that counts; 'any': where it has any.

    Returns:
        tuple[np.ndarray, np.ndarray]: bool ``[rows * columns]`` each: foreground,
        and whether any of the token's area counts.

    Raises:
        UserError: The rule is unknown.
    """
    check('rule', rule, choices=RULES)
    counted = _shares(mask != IGNORED, grid)
    foreground = _shares(mask == 1, grid)
    valid = counted > _ROUNDING
    if rule == 'majority':
        # Exactly one half is foreground, whatever the rounding.
        is_foreground = foreground >= 0.5 * counted - _ROUNDING
    else:
        is_foreground = foreground >= _ROUNDING
    return (valid & is_foreground).ravel(), valid.ravel()


def _shares(pixels: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Return the share of each token's area where pixels are True.

    Args:
        pixels (np.ndarray): bool ``[H, W]``.
        grid (tuple[int, int]): Rows and columns of tokens.

    Returns:
        np.ndarray: float64 ``[rows, columns]``, 0 to 1.
    """
    rows, columns = grid
    return cv2.resize(
        pixels.astype(np.float64), (columns, rows), interpolation=cv2.INTER_AREA
    )


def iou(
    predicted: np.ndarray, truth: np.ndarray, valid: np.ndarray | None = None
) -> np.ndarray:
    """Return TP / (TP + FP + FN) over the last axis.

    Args:
        predicted, truth (np.ndarray): bool ``[..., N]``, broadcast together.
        valid (np.ndarray, optional): bool ``[..., N]``, the tokens that count.

    Returns:
        np.ndarray: float64; NaN where nothing is true and nothing predicted.
    """
    if valid is None:
        valid = np.ones_like(truth)
    hits = (predicted & truth & valid).sum(-1)
    union = ((predicted | truth) & valid).sum(-1)
    return np.where(union > 0, hits / np.maximum(union, 1), np.nan)


@dataclass
class TokenMaps:
    """Maps of one measure at one point, for a batch of images.

    Attributes:
        measure (str): 'magnitude', 'frequency' or 'attention'.
        point (str): The point's label.
        values (np.ndarray): float64 ``[B, N]``, 0 to 1. A constant map, which ranks
            no token above another, is all ones: everything is foreground.
        grid (tuple[int, int]): Rows and columns.
        note (str): Whose attention it is, for example 'class token'.
    """

    measure: str
    point: str
    values: np.ndarray
    grid: tuple[int, int]
    note: str = ''

    def variant(self, name: str, order: np.ndarray) -> np.ndarray:
        """Return the maps in one of :data:`VARIANTS`, float64 ``[B, N]``, 0 to 1.

        Args:
            name (str): The variant.
            order (np.ndarray): int64 ``[B, N]``: where the shuffled values of each
                image come from. Other variants do not read it.
        """
        if name == AS_IS:
            return self.values
        if name == SHUFFLED:
            return np.take_along_axis(self.values, order, axis=-1)
        # A constant map stays all ones, as its class says.
        is_flat = (self.values == 1).all(axis=-1, keepdims=True)
        return np.where(is_flat, 1.0, 1 - self.values)


def maps_of(analysis: Analysis) -> list[TokenMaps]:
    """Turn the analysis of a batch of images into maps with values from 0 to 1.

    Args:
        analysis (Analysis): The batch's analysis.

    Returns:
        list[TokenMaps]: A map for every measure and point, and one for each attention
        that could be recomputed: its row summed over heads. The map's ``note`` names
        the row, which is the class token's, or without one the mean over all.

    Raises:
        UserError: The model does not take images, or looks at several views.
    """
    if getattr(analysis.inputs, 'ndim', 0) != 4 or analysis.views != 1:
        raise UserError('Pseudo-masks need an image model that sees each image once.')
    maps = []
    for measure in MEASURES:
        for label, point in analysis.points.items():
            maps.append(_maps_of_measure(measure, label, point))
    for label, attention in analysis.attention.items():
        maps.append(_maps_of_attention(label, attention))
    return maps


def _maps_of_measure(measure: str, label: str, point: Point) -> TokenMaps:
    """Return the maps of a measure at a point, for all images of a batch.

    Args:
        measure (str): 'magnitude' or 'frequency'.
        label (str): The point's label.
        point (Point): The tokens ``[B, N, C]``, and their places.
    """
    values = _array(point.measure(measure, scaled=False))
    if measure == 'magnitude':
        # A magnitude is the norm of a difference of tokens: its rounding error grows
        # with the norm of the tokens, not with the magnitude itself.
        magnitudes = _array(point.tokens.double().norm(dim=-1)).mean(-1)
    else:
        # A frequency is the norm of C angles, each of which is at most pi.
        channels = point.tokens.shape[-1]
        magnitudes = np.full(len(point.tokens), np.pi * np.sqrt(channels))
    scaled = _scale_to_unit(values, magnitudes)
    return TokenMaps(measure, label, scaled, _rows_and_columns(point.layout))


def _maps_of_attention(label: str, attention: Attention) -> TokenMaps:
    """Return the maps of an attention, its row summed over heads, for all images of a batch.

    Args:
        label (str): The attention's label.
        attention (Attention): The row's weights ``[B, H, N]``, and the tokens' places.
    """
    values = _array(attention.weights).sum(axis=1)
    scaled = _scale_to_unit(values, magnitudes=values.mean(-1))
    grid = _rows_and_columns(attention.layout)
    return TokenMaps('attention', label, scaled, grid, note=attention.row)


def _rows_and_columns(layout: Layout) -> tuple[int, int]:
    """Return rows and columns of an image's tokens."""
    rows, columns = layout.grid
    return rows, columns


def _array(x: Tensor) -> np.ndarray:
    """Return a tensor as float64."""
    return x.detach().double().cpu().numpy()


def _scale_to_unit(values: np.ndarray, magnitudes: np.ndarray) -> np.ndarray:
    """Scale the values of each image to 0 ... 1 by their minimum and maximum.

    Values that differ by rounding errors alone become all ones, so that the pseudo-mask
    of a map without structure is foreground everywhere, as :data:`PRIOR` is.

    Args:
        values (np.ndarray): float64 ``[B, N]``.
        magnitudes (np.ndarray): float64 ``[B]``, the magnitude of the numbers from which
            an image's values were computed. A span of values up to :data:`_FLAT` of it
            counts as rounding.
    """
    low = values.min(-1, keepdims=True)
    span = np.ptp(values, axis=-1)[:, None]
    is_flat = span <= _FLAT * magnitudes[:, None]
    divisor = np.where(is_flat, 1.0, span)  # avoids a division by zero
    return np.where(is_flat, 1.0, (values - low) / divisor)


# -------------------------------------------------------------------- all images
class _Targets(NamedTuple):
    """What pseudo-masks are compared with, bool ``[B, N]`` each; see :func:`token_mask`."""

    truth: np.ndarray
    valid: np.ndarray

    def take(self, kept: np.ndarray) -> '_Targets':
        """Return the targets of some images; ``kept`` is bool ``[B]``."""
        return _Targets(self.truth[kept], self.valid[kept])


@dataclass
class Scores:
    """IoU of every image, map, variant and threshold.

    Attributes:
        thresholds (Sequence[float]): The T thresholds; a token is in the pseudo-mask
            where its value is above.
        rule (str): The rule of :func:`token_mask`.
        seed (int): Seeds the shuffled maps.
        names (list[str]): The images that are scored, in order.
        empty (list[str]): The images that are left out, as none of their tokens is
            foreground.
        notes (dict[str, str]): Whose attention it is, by the point's label.
        parts (dict): IoU float64 ``[images, T]`` of each batch by (measure, point,
            variant); the prior's T is 1.
    """

    thresholds: Sequence[float] = THRESHOLDS
    rule: str = 'majority'
    seed: int = 0
    names: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    parts: dict[Key, list[np.ndarray]] = field(
        default_factory=lambda: defaultdict(list)
    )

    def add(
        self,
        maps: Sequence[TokenMaps],
        masks: Sequence[np.ndarray],
        names: Sequence[str],
    ) -> None:
        """Score a batch: the prior, and every map in every variant at every threshold.

        An image counts if its mask has foreground on the grids of all maps; the names of
        the others go to ``empty``.

        Args:
            maps (Sequence[TokenMaps]): The maps of the B images.
            masks (Sequence[np.ndarray]): B masks, as :func:`token_mask` takes them.
            names (Sequence[str]): B names.
        """
        targets = {}
        for grid in {token_maps.grid for token_maps in maps}:
            targets[grid] = self._targets(masks, grid)
        has_foreground = [target.truth.any(-1) for target in targets.values()]
        kept = np.all(has_foreground, axis=0)
        first = len(self.names) + len(self.empty)
        for name, is_kept in zip(names, kept, strict=True):
            if is_kept:
                self.names.append(name)
            else:
                self.empty.append(name)

        finest = targets[max(targets, key=np.prod)].take(kept)
        everything = np.ones_like(finest.truth)
        self.parts[PRIOR].append(iou(everything, finest.truth, finest.valid)[:, None])
        for token_maps in maps:
            if token_maps.note:
                self.notes[token_maps.point] = token_maps.note
            orders = self._orders(first, token_maps.values.shape)
            for variant in VARIANTS:
                values = token_maps.variant(variant, orders)[kept]
                part = self._score(values, targets[token_maps.grid].take(kept))
                key = (token_maps.measure, token_maps.point, variant)
                self.parts[key].append(part)

    def _targets(
        self, masks: Sequence[np.ndarray], grid: tuple[int, int]
    ) -> '_Targets':
        """Bring the B masks of a batch to a grid of tokens; see :func:`token_mask`."""
        truth = []
        valid = []
        for mask in masks:
            own_truth, own_valid = token_mask(mask, grid, self.rule)
            truth.append(own_truth)
            valid.append(own_valid)
        return _Targets(np.stack(truth), np.stack(valid))

    def _orders(self, first: int, shape: tuple[int, ...]) -> np.ndarray:
        """Draw an order of N tokens for each of B images.

        Each image has random numbers of its own, whatever the size of a batch.

        Args:
            first (int): How many images of the data set come before these.
            shape (tuple[int, int]): B and N.

        Returns:
            np.ndarray: int64 ``[B, N]``, a permutation in each row.
        """
        images, tokens = shape
        orders = []
        for i in range(images):
            rng = np.random.default_rng((self.seed, first + i))
            orders.append(rng.permutation(tokens))
        return np.stack(orders)

    def _score(self, values: np.ndarray, targets: '_Targets') -> np.ndarray:
        """Return the IoU of maps ``[B, N]`` at each of the T thresholds, float64 ``[B, T]``."""
        thresholds = np.asarray(self.thresholds)[:, None]
        predicted = values[:, None, :] > thresholds
        return iou(predicted, targets.truth[:, None], targets.valid[:, None])

    @property
    def tables(self) -> dict[Key, np.ndarray]:
        """IoU float64 ``[images, T]`` by (measure, point, variant); the prior's T is 1."""
        return {key: np.concatenate(parts) for key, parts in self.parts.items()}


def split_images(count: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw the images on which a threshold is fixed, and the rest.

    Args:
        count (int): How many images there are, at least two.
        share (float): The share of images for choosing, in (0, 1); at least one image
            is chosen and at least one is left.
        seed (int): Seeds the draw.

    Returns:
        tuple[np.ndarray, np.ndarray]: Indices, sorted, disjoint, together all.
    """
    check('--fixed-share', share, above=0, most=0.999999)
    check('the number of images with foreground', count, least=2)
    chosen = int(np.clip(round(share * count), 1, count - 1))
    order = np.random.default_rng(seed).permutation(count)
    return np.sort(order[:chosen]), np.sort(order[chosen:])
