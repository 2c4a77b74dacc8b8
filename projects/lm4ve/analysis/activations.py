"""What an analysis captures of a model: tokens at points, and rows of attention."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lm4ve.analysis.measures import MEASURES, normalize
from lm4ve.tasks.base.layouts import Layout


@dataclass
class Point:
    """The output tokens of a module.

    Attributes:
        name (str): The module's name, with ``:input`` if its input is meant.
        tokens (Tensor): ``[B, N, C]`` without the prefix; B counts views.
        layout (Layout): Their places.
    """

    name: str
    tokens: Tensor
    layout: Layout

    def measure(self, which: str, scaled: bool = True) -> Tensor:
        """Measure the tokens.

        Args:
            which (str): 'magnitude' or 'frequency'.
            scaled (bool): Min-max normalize the values of each sample.

        Returns:
            Tensor: float64 ``[B, N]``.
        """
        padding_mask = self.layout.padding_mask
        values = MEASURES[which](self.tokens, padding_mask)
        if not scaled:
            return values
        return normalize(values, padding_mask)


@dataclass
class Attention:
    """Attention of one query row.

    Attributes:
        name (str): The module's name.
        weights (Tensor): ``[B, H, N]``, for each of H heads the weights of the N placed
            tokens. The prefix's weights are left out, so a row sums to at most 1.
        row (str): Whose row: 'class token', 'focal agent' or 'mean over tokens'.
        layout (Layout): The tokens' places.
        titles (list[list[str]], optional): For each sample the names of its rows. With
            titles, H counts these rows instead of heads: the weights of a row are the
            mean over its heads.
    """

    name: str
    weights: Tensor
    row: str
    layout: Layout
    titles: list[list[str]] | None = None


@dataclass
class Analysis:
    """The captured activations of one batch.

    Attributes:
        kind (str): The name of the model's task.
        inputs (Tensor | dict): The preprocessed batch.
        points (dict[str, Point]): The points by label, in the requested order.
        attention (dict[str, Attention]): 'encoder' (its last block) and 'block' (the
            language model's last layer), where they could be read, and what the task
            watches.
        outputs (list): The model's predictions.
        views (int): Rows of the points for one sample (clips, crops).
    """

    kind: str
    inputs: Any
    points: dict[str, Point]
    attention: dict[str, Attention]
    outputs: list
    views: int = 1
