"""How many waves are told apart."""

from mmengine.evaluator import BaseMetric

from lm4ve.registry import METRICS


@METRICS.register_module()
class WaveAccuracy(BaseMetric):
    """Share of the waves whose label is predicted."""

    default_prefix = 'wave'

    def process(self, data_batch: dict, data_samples: list[dict]) -> None:
        labels = [int(s['pred_label']) for s in data_samples]
        self.results += [
            a == b for a, b in zip(labels, data_batch['label'], strict=True)
        ]

    def compute_metrics(self, results: list) -> dict:
        return dict(accuracy=sum(results) / len(results))
