"""minADE, minFDE, miss rate and brier-minFDE, in both conventions.

The two data sets' conventions differ (see :data:`CONVENTIONS`); a table must name
the one that it shows. Pure functions of numpy first, MMEngine's metric at the end. The functions
of ``av2`` are not used: they cover one convention and no unknown steps, and bring PyAV,
kornia and numba. The tests compare with them.
"""

import logging
from collections.abc import Sequence

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log

from lm4ve.errors import UserError, check
from lm4ve.registry import METRICS
from lm4ve.tasks.motion.submission import FORMATS, write_submission

#: 'argoverse1' (argoverse-api, ``eval_forecasting.py``): minADE is the ADE of the
#: trajectory with the smallest FDE; probabilities are normalized over the K kept
#: ones before they enter brier-minFDE.
#: 'argoverse2' (code in the wild, for example Forecast-MAE): minADE is the smallest
#: ADE of all K; probabilities stay as they are (``normalize=False`` in av2-api).
CONVENTIONS = ('argoverse1', 'argoverse2')
MISS_METERS = 2.0


def displacements(
    predictions: np.ndarray, truth: np.ndarray, valid: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Compute ADE and FDE of each prediction.

    Args:
        predictions (np.ndarray): ``[K, F, 2]``, meters.
        truth (np.ndarray): ``[F, 2]``.
        valid (np.ndarray, optional): bool ``[F]``, which steps of the truth are
            known. The mean is over these; the end point is the last of them.

    Returns:
        tuple[np.ndarray, np.ndarray]: ADE and FDE, ``[K]``.

    Raises:
        IndexError: No step is valid.
    """
    if valid is None:
        valid = np.ones(len(truth), dtype=bool)
    errors = np.linalg.norm(predictions - truth, axis=-1)[:, valid]
    ends = errors[:, -1]
    return errors.mean(axis=1), ends


def most_probable(probabilities: np.ndarray, k: int) -> np.ndarray:
    """Return the indices of the k highest probabilities, highest first, ties in their order.

    All of them if there are fewer than k.
    """
    return np.argsort(-np.asarray(probabilities), kind='stable')[:k]


def forecast_metrics(
    predictions: np.ndarray,
    probabilities: np.ndarray,
    truth: np.ndarray,
    valid: np.ndarray | None = None,
    k: int = 6,
    convention: str = 'argoverse1',
    miss_threshold: float = MISS_METERS,
) -> dict[str, float]:
    """Compute the metrics of one agent.

    Args:
        predictions (np.ndarray): ``[N, F, 2]``, meters.
        probabilities (np.ndarray): ``[N]``, in [0, 1].
        truth (np.ndarray): ``[F, 2]``.
        valid (np.ndarray, optional): bool ``[F]``, see :func:`displacements`.
        k (int): The k most probable predictions count; all if there are fewer.
        convention (str): One of :data:`CONVENTIONS`.
        miss_threshold (float): An end point off by more is a miss, meters.

    Returns:
        dict[str, float]: ``minADE``, ``minFDE`` (meters), ``MR`` (0 or 1),
        ``brier-minFDE``. Of predictions that share the smallest FDE the most
        probable one is the best.

    Raises:
        ValueError: Shapes do not fit; a value is out of range or not finite.
    """
    check('convention', convention, choices=CONVENTIONS)
    check('k', k, least=1)
    predictions = np.asarray(predictions, dtype=np.float64)
    probabilities = np.asarray(probabilities, dtype=np.float64)
    shapes_fit = predictions.shape == (len(probabilities), *truth.shape)
    in_range = ((probabilities >= 0) & (probabilities <= 1 + 1e-6)).all()
    if not (shapes_fit and in_range and np.isfinite(predictions).all()):
        raise ValueError(
            f'expected finite predictions [K, {len(truth)}, 2] and probabilities [K] from 0 to 1, '
            f'got {predictions.shape} and {probabilities}'
        )
    kept = most_probable(probabilities, k)
    ade, fde = displacements(predictions[kept], truth, valid)
    best = fde.argmin()
    p = probabilities[kept]
    if convention == 'argoverse1':
        min_ade = ade[best]
        p = p / p.sum() if p.sum() > 0 else np.full(len(p), 1 / len(p))
    else:
        min_ade = ade.min()
    return {
        'minADE': float(min_ade),
        'minFDE': float(fde[best]),
        'MR': float(fde[best] > miss_threshold),
        'brier-minFDE': float(fde[best] + (1 - p[best]) ** 2),
    }


@METRICS.register_module()
class MotionMetric(BaseMetric):
    """Mean of :func:`forecast_metrics` over scenes, for several k.

    Args:
        convention (str): One of :data:`CONVENTIONS`.
        k (Sequence[int]): Numbers of predictions.
        miss_threshold (float): Meters.
        submission (str, optional): Also write the predictions to this file for
            the data set's server (``.h5`` for Argoverse 1, ``.parquet`` for
            Argoverse 2).
        submission_format (str, optional): Default: the convention.
        format_only (bool): Only write the file: for test sets without truth.
        collect_device, prefix: Passed to MMEngine's ``BaseMetric``.

    Data samples are dicts with ``scene``, ``trajectories`` (``[K, F, 2]`` in city
    coordinates) and ``probabilities`` (``[K]``) of the focal agent.

    Results: ``<metric>@<k>``, meters; MR as a fraction; ``scenes``, how many
    counted. Scenes without any known future do not count; how many is logged.

    Raises:
        UserError: A field is wrong; no scene has a known future.
    """

    default_prefix = 'motion'

    def __init__(
        self,
        convention: str = 'argoverse1',
        k: Sequence[int] = (1, 6),
        miss_threshold: float = MISS_METERS,
        submission: str | None = None,
        submission_format: str | None = None,
        format_only: bool = False,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        check('MotionMetric.convention', convention, choices=CONVENTIONS)
        if format_only:
            check('MotionMetric.submission with format_only', submission, kind=str)
        self.convention, self.k = convention, tuple(k)
        self.miss_threshold = miss_threshold
        self.submission, self.format_only = submission, format_only
        self.submission_format = submission_format or convention
        check('MotionMetric.submission_format', self.submission_format, choices=FORMATS)

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        """Score a batch; keep a few numbers a scene."""
        for sample in data_samples:
            scene = sample['scene']
            result = dict(scene_id=scene.scene_id)
            forecast = {key: sample[key] for key in ('trajectories', 'probabilities')}
            truth, valid = scene.future
            if not self.format_only and valid.any():
                how = dict(convention=self.convention, miss_threshold=self.miss_threshold)
                for k in self.k:
                    result[k] = forecast_metrics(*forecast.values(), truth, valid, k, **how)
            if self.submission is not None:
                result.update(forecast, track_id=scene.track_ids[scene.focal])
            self.results.append(result)

    def compute_metrics(self, results: list[dict]) -> dict:
        if self.submission is not None:
            write_submission(self.submission, results, self.submission_format)
        if self.format_only:
            return {}
        scored = [r for r in results if self.k[0] in r]
        if not scored:
            raise UserError(
                f'None of the {len(results)} scenes has a known future. Fix for a test set: '
                'test_evaluator.format_only=True and a submission file.'
            )
        if blind := len(results) - len(scored):
            text = f'MotionMetric: {blind} of {len(results)} scenes have no known future'
            print_log(f'{text} and do not count', logger='current', level=logging.WARNING)
        metrics = {
            f'{name}@{k}': float(np.mean([r[k][name] for r in scored]))
            for k in self.k
            for name in scored[0][k]
        }
        return dict(metrics, scenes=len(scored))
