"""IoU and Dice of one lesion."""

from mmseg.evaluation.metrics import IoUMetric

from lm4ve.registry import METRICS


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
        """Compute all of them."""
        pooled = super().compute_metrics(results)
        smooth = 1e-5
        ious = [(float(r[0][1]) + smooth) / (float(r[1][1]) + smooth) for r in results]
        dices = [2 * x / (1 + x) for x in ious]
        names = dict(IoU=ious, Dice=dices)
        return dict(pooled, **{k: 100 * sum(v) / len(v) for k, v in names.items()})
