"""IoU and Dice of one lesion."""

from mmseg.evaluation.metrics import IoUMetric

from lm4ve.registry import METRICS

#: Added to intersection and union, so that a picture without lesion counts 100.
_SMOOTH = 1e-5


@METRICS.register_module()
class LesionIoU(IoUMetric):
    """mmsegmentation's ``IoUMetric``, and IoU and Dice of the lesion alone.

    ``IoU`` and ``Dice`` in per cent are of class 1 and, as in CMUNeXt's and LLM4Seg's
    code, the mean over pictures. A picture without lesion counts 100 if none is found.
    ``mIoU`` and ``mDice`` are over all pixels and both classes, of which the background
    is easy.
    """

    default_prefix = 'lesion'

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Add the lesion's means over pictures to mmsegmentation's metrics over all pixels.

        Args:
            results (list): For each picture the areas of intersection and of union, a
                number for each class, and others that are not used.
        """
        metrics = super().compute_metrics(results)
        ious = []
        for intersections, unions, *_ in results:
            # Class 1 is the lesion.
            intersection = float(intersections[1]) + _SMOOTH
            union = float(unions[1]) + _SMOOTH
            ious.append(intersection / union)
        dices = [2 * iou / (1 + iou) for iou in ious]
        metrics['IoU'] = 100 * sum(ious) / len(ious)
        metrics['Dice'] = 100 * sum(dices) / len(dices)
        return metrics
