"""Draws what a model does with a batch: for ``lm4ve visualize`` and ``ActivationVisHook``."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from lm4ve.analysis.capture import analyse
from lm4ve.analysis.measures import MEASURES
from lm4ve.analysis.samples import Sample, samples_of
from lm4ve.analysis.sheets import draw_sheet
from lm4ve.draw.figures import to_image


class Sheet(NamedTuple):
    """A sample, and its picture: uint8 ``[H, W, 3]``, RGB."""

    sample: Sample
    image: np.ndarray


def draw_batch(
    model: nn.Module,
    batch: dict,
    names: Sequence[str],
    note: str,
    points: Mapping[str, str] | None = None,
    measures: Sequence[str] = tuple(MEASURES),
    attention: bool = True,
    heads: int | None = None,
    evaluator: Any = None,
    classes: Sequence[str] | None = None,
    files: Sequence[str | None] | None = None,
) -> list[Sheet]:
    """Run a model on a batch, and draw a sheet of activations for each sample.

    Args:
        model (nn.Module): See :func:`lm4ve.analysis.capture.analyse`.
        batch (dict): A batch as a dataloader gives it.
        names (Sequence[str]): The names of the samples.
        note (str): A line on each sheet, for example the checkpoint.
        points (Mapping[str, str], optional): See
            :func:`lm4ve.analysis.capture.analyse`.
        measures (Sequence[str]): Which of 'magnitude' and 'frequency' to draw.
        attention (bool): Also draw attention, where it can be recomputed.
        heads (int, optional): See :func:`lm4ve.analysis.samples.samples_of`.
        evaluator (dict | list, optional): The settings of the metrics, for a score.
        classes (Sequence[str], optional): Names of the labels.
        files (Sequence[str | None], optional): The samples' files, which the sheets name.

    Returns:
        list[Sheet]: One for each sample.

    Raises:
        UserError: See :func:`lm4ve.analysis.capture.analyse`.
    """
    analysis = analyse(model, batch, points, attention)
    samples = samples_of(analysis, model, names, evaluator, measures, classes, heads)
    if files is not None:
        for sample, file in zip(samples, files, strict=True):
            if file is not None:
                sample.facts['file'] = file
    return [Sheet(sample, to_image(draw_sheet(sample, note))) for sample in samples]
