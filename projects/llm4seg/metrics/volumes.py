"""Overlap and surface distances of segmented volumes."""

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from monai.metrics import compute_dice, compute_hausdorff_distance, compute_surface_dice
from monai.networks import one_hot
from torch import Tensor

from lm4ve.errors import check
from lm4ve.registry import METRICS

#: Name of a metric -> the factor that turns its mean into per cent, or leaves it in mm.
_SCALES = dict(Dice=100, NSD=100, HD95=1, missed=100)


@METRICS.register_module()
class VolumeMetric(BaseMetric):
    """Dice, normalized surface Dice and the 95th percentile of Hausdorff's distance, by MONAI.

    ``volume/Dice`` and ``volume/NSD`` are in per cent, ``volume/HD95`` in mm; each is
    the mean over the structures of all volumes, without the background. A structure
    that a volume lacks and that is not found counts 100 % in Dice and not in the
    others. One that is missed has no distance: it is left out of HD95 and counted by
    ``volume/missed`` (per cent of the structures that are there), without which HD95
    means little.

    Args:
        tolerance (float): Distance in mm up to which a surface is right.
        **kwargs: Passed to MMEngine's ``BaseMetric``.
    """

    default_prefix = 'volume'

    def __init__(self, tolerance: float = 1.0, **kwargs) -> None:
        super().__init__(**kwargs)
        check('evaluator.tolerance', tolerance, above=0)
        self.tolerance = tolerance

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        """Measure each structure of each volume, and keep the results.

        Args:
            data_batch: Not used.
            data_samples (Sequence[dict]): With ``gt_seg`` and ``pred_seg``, int64 ``[H, W,
                D]``, ``spacing`` in mm and ``num_classes``.
        """
        for sample in data_samples:
            num_classes = sample['num_classes']
            # [1, classes, H, W, D], as MONAI takes them.
            truth = one_hot(sample['gt_seg'].cpu()[None, None], num_classes)
            found = one_hot(sample['pred_seg'].cpu()[None, None], num_classes)
            self.results.append(self._measure(truth, found, sample['spacing']))

    def _measure(
        self, truth: Tensor, found: Tensor, spacing: Sequence[float]
    ) -> np.ndarray:
        """Measure the structures of one volume.

        Args:
            truth, found (Tensor): One-hot ``[1, classes, H, W, D]``.
            spacing (Sequence[float]): The sides of a voxel in mm.

        Returns:
            np.ndarray: float64 ``[4, classes - 1]``, a row for each metric of
            :data:`_SCALES`; NaN where a metric does not apply to a structure.
        """
        num_structures = truth.shape[1] - 1
        dice = compute_dice(found, truth, include_background=False, ignore_empty=False)
        with warnings.catch_warnings():
            # MONAI warns of structures that are not there.
            warnings.simplefilter('ignore')
            nsd = compute_surface_dice(
                found, truth, [self.tolerance] * num_structures, spacing=spacing
            )
            hd95 = compute_hausdorff_distance(
                found, truth, percentile=95, spacing=spacing
            )
        is_there = truth[0, 1:].flatten(1).sum(1) > 0
        is_found = found[0, 1:].flatten(1).sum(1) > 0
        hd95[0, ~(is_there & is_found)] = float('nan')
        missed = torch.where(is_there, (~is_found).float(), float('nan'))
        rows = (dice[0], nsd[0], hd95[0], missed)
        return torch.stack([row.double() for row in rows]).numpy()

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Average each metric over volumes and structures, without the NaN.

        A metric that applied to no structure is left out.
        """
        values = np.concatenate(results, axis=1)
        metrics = {}
        for (name, scale), row in zip(_SCALES.items(), values, strict=True):
            if not np.isnan(row).all():
                metrics[name] = scale * float(np.nanmean(row))
        return metrics
