"""minADE, minFDE, miss rate and brier-minFDE, and the files for the evaluation servers.

The two data sets' conventions differ (see :data:`CONVENTIONS`); a table must name
the one that it shows. Pure functions of numpy first, MMEngine's metric at the end. The
functions of ``av2`` are not used: they cover one convention and no unknown steps, and
bring PyAV, kornia and numba. The tests compare with them.

Argoverse 1's server reads HDF5 (argoverse-api, ``competition_util.py``): one data set
``argoverse_forecasting`` of rows sequence, x, y, probability, 30 rows a trajectory.
Argoverse 2's reads parquet (av2-api, ``eval/submission.py``): one row a trajectory.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mmengine.evaluator import BaseMetric, Evaluator

from lm4ve.errors import UserError, check, require
from lm4ve.files import replacing
from lm4ve.registry import METRICS

#: 'argoverse1' (argoverse-api, ``eval_forecasting.py``): minADE is the ADE of the
#: trajectory with the smallest FDE; probabilities are normalized over the K kept
#: ones before they enter brier-minFDE.
#: 'argoverse2' (code in the wild, for example Forecast-MAE): minADE is the smallest
#: ADE of all K; probabilities stay as they are (``normalize=False`` in av2-api).
#: The values are a submission's suffix and the steps of its trajectories.
CONVENTIONS = {'argoverse1': ('.h5', 30), 'argoverse2': ('.parquet', 60)}
#: A forecast that ends farther than this from the truth is a miss.
MISS_METERS = 2.0


def forecast_metrics(
    predictions: np.ndarray,
    probabilities: np.ndarray,
    truth: np.ndarray,
    valid: np.ndarray | None = None,
    k: int = 6,
    *,
    convention: str,
) -> dict[str, float]:
    """Compute the metrics of one agent.

    Args:
        predictions (np.ndarray): ``[N, F, 2]``, meters.
        probabilities (np.ndarray): ``[N]``, in [0, 1].
        truth (np.ndarray): ``[F, 2]``.
        valid (np.ndarray, optional): bool ``[F]``, which steps of the truth are
            known. The mean is over these; the end point is the last of them.
        k (int): The k most probable predictions count; all if there are fewer.
        convention (str): One of :data:`CONVENTIONS`.

    Returns:
        dict[str, float]: ``minADE``, ``minFDE`` (meters), ``MR`` (0 or 1),
        ``brier-minFDE``. Of predictions that share the smallest FDE the most
        probable one is the best.

    Raises:
        ValueError: Shapes do not fit; a value is out of range or not finite.
        IndexError: No step is valid.
    """
    check('convention', convention, choices=CONVENTIONS)
    predictions = np.asarray(predictions, dtype=np.float64)
    probabilities = np.asarray(probabilities, dtype=np.float64)
    _check_forecast(predictions, probabilities, truth)
    kept = np.argsort(-probabilities, kind='stable')[:k]
    probabilities = probabilities[kept]
    errors = np.linalg.norm(predictions[kept] - truth, axis=-1)
    if valid is not None:
        errors = errors[:, valid]
    fde = errors[:, -1]
    ade = errors.mean(axis=1)
    best = fde.argmin()
    if convention == 'argoverse1':
        min_ade = ade[best]
        probabilities = _normalized(probabilities)
    else:
        min_ade = ade.min()
    return {
        'minADE': float(min_ade),
        'minFDE': float(fde[best]),
        'MR': float(fde[best] > MISS_METERS),
        'brier-minFDE': float(fde[best] + (1 - probabilities[best]) ** 2),
    }


def _check_forecast(
    predictions: np.ndarray, probabilities: np.ndarray, truth: np.ndarray
) -> None:
    """Refuse forecasts whose shapes do not fit the truth's, or whose values make no sense.

    Args:
        predictions (np.ndarray): ``[K, F, 2]``.
        probabilities (np.ndarray): ``[K]``.
        truth (np.ndarray): ``[F, 2]``.

    Raises:
        ValueError: They do not fit, are not finite, or a probability is not in [0, 1].
    """
    fits = predictions.shape == (len(probabilities), *truth.shape)
    # A softmax may exceed 1 by rounding.
    in_range = ((probabilities >= 0) & (probabilities <= 1 + 1e-6)).all()
    is_finite = np.isfinite(predictions).all()
    if not (fits and in_range and is_finite):
        raise ValueError(
            f'predictions {predictions.shape} and probabilities {probabilities} are not '
            f'finite [K, {len(truth)}, 2] and [K] from 0 to 1'
        )


def _normalized(probabilities: np.ndarray) -> np.ndarray:
    """Return probabilities that sum to 1; equal ones where all are 0."""
    total = probabilities.sum()
    if total > 0:
        return probabilities / total
    return np.full(len(probabilities), 1 / len(probabilities))


def write_submission(path: str | Path, forecasts: list[dict], form: str) -> None:
    """Write predictions of a test set's focal agents.

    Args:
        path (str | Path): The file; its suffix must be the format's.
        forecasts (list[dict]): ``scene_id``, ``track_id``, ``trajectories``
            (``[K, F, 2]``, city coordinates in meters), ``probabilities``
            (``[K]``; normalized here, as both servers require).
        form (str): A key of :data:`CONVENTIONS`.

    Raises:
        UserError: Suffix or number of steps are not the format's.
        ValueError: An Argoverse 1 sequence is not named by its number.
    """
    path = Path(path)
    suffix, steps = CONVENTIONS[form]
    require(
        path.suffix == suffix,
        f"submission='{path}' must end in '{suffix}', the form of {form}.",
    )
    rows = []
    for forecast in forecasts:
        trajectories = np.asarray(forecast['trajectories'], np.float64)
        probabilities = np.asarray(forecast['probabilities'], np.float64)
        num_steps = trajectories.shape[1]
        require(
            num_steps == steps,
            f"scene '{forecast['scene_id']}': steps are {num_steps}, but {form} takes {steps}.",
        )
        total = probabilities.sum()
        # The best first, since servers keep the first k where probabilities tie.
        for i in np.argsort(-probabilities, kind='stable'):
            row = dict(
                scenario_id=forecast['scene_id'],
                track_id=forecast['track_id'],
                probability=probabilities[i] / total,
                predicted_trajectory_x=trajectories[i, :, 0],
                predicted_trajectory_y=trajectories[i, :, 1],
            )
            rows.append(row)
    table = pd.DataFrame(rows)
    with replacing(path) as beside:
        if form == 'argoverse2':
            table.to_parquet(beside)
        else:
            _write_h5(beside, table)


def _write_h5(path: Path, table: pd.DataFrame) -> None:
    """Write Argoverse 1's form: a row of scene, x, y and probability for each step."""
    import h5py  # only this format needs it

    x = np.stack(table['predicted_trajectory_x']).astype(np.float32)
    y = np.stack(table['predicted_trajectory_y']).astype(np.float32)
    steps = x.shape[1]
    ids = np.repeat(table['scenario_id'].astype(int), steps)
    probabilities = np.repeat(table['probability'], steps)
    data = np.column_stack([ids, x.ravel(), y.ravel(), probabilities])
    with h5py.File(path, 'w') as file:
        file.create_dataset('argoverse_forecasting', data=data, compression='gzip')


@METRICS.register_module()
class MotionMetric(BaseMetric):
    """Mean of :func:`forecast_metrics` over scenes, for several k.

    Args:
        convention (str): One of :data:`CONVENTIONS`.
        k (Sequence[int]): Numbers of predictions.
        submission (str, optional): Also write the predictions to this file for
            the server of the convention's data set (``.h5`` for Argoverse 1,
            ``.parquet`` for Argoverse 2).
        **kwargs: Passed to MMEngine's ``BaseMetric``.

    Data samples are dicts with ``scene``, ``trajectories`` (``[K, F, 2]`` in city
    coordinates) and ``probabilities`` (``[K]``) of the focal agent.

    Results: ``<metric>@<k>``, meters; MR as a fraction; ``scenes``, how many
    counted. Scenes without any known future do not count.

    Raises:
        UserError: A field is wrong; no scene has a known future, and there is no
            submission.
    """

    default_prefix = 'motion'

    def __init__(
        self,
        convention: str,
        k: Sequence[int] = (1, 6),
        submission: str | None = None,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        check('MotionMetric.convention', convention, choices=CONVENTIONS)
        self.convention = convention
        self.k = tuple(k)
        self.submission = submission

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        """Score a batch; keep a few numbers a scene."""
        for sample in data_samples:
            scene = sample['scene']
            result = dict(scene_id=scene.scene_id, scores=self.score(sample))
            if self.submission is not None:
                result['trajectories'] = sample['trajectories']
                result['probabilities'] = sample['probabilities']
                result['track_id'] = scene.track_ids[scene.focal]
            self.results.append(result)

    def score(self, sample: dict) -> dict[str, float]:
        """Return the metrics of a sample; none if its future is not known.

        Args:
            sample (dict): ``scene``, ``trajectories`` and ``probabilities``.

        Returns:
            dict[str, float]: ``<metric>@<k>``, without the prefix.
        """
        future, valid = sample['scene'].future
        scores: dict[str, float] = {}
        if not valid.any():
            return scores
        for k in self.k:
            metrics = forecast_metrics(
                sample['trajectories'],
                sample['probabilities'],
                future,
                valid,
                k,
                convention=self.convention,
            )
            for name, value in metrics.items():
                scores[f'{name}@{k}'] = value
        return scores

    def compute_metrics(self, results: list[dict]) -> dict:
        """Write the submission if there is one, and average over scenes that have a future."""
        if self.submission is not None:
            write_submission(self.submission, results, self.convention)
        scored = [r['scores'] for r in results if r['scores']]
        if not scored and self.submission is None:
            raise UserError(
                'No scene has a known future. Fix for a test set: a submission file.'
            )
        metrics: dict[str, float] = {}
        if scored:
            for name in scored[0]:
                metrics[name] = float(np.mean([scores[name] for scores in scored]))
        metrics['scenes'] = len(scored)
        return metrics


def find_metric(evaluator: Any) -> MotionMetric | None:
    """Build the metrics of a config's evaluator, and return the first of forecasts.

    Args:
        evaluator (dict | list, optional): ``test_evaluator`` or ``val_evaluator`` of a
            config.

    Returns:
        MotionMetric | None: None if there is none, or no evaluator.
    """
    if not evaluator:
        return None
    if isinstance(evaluator, Mapping):
        evaluator = evaluator.get('metrics', evaluator)
    for metric in Evaluator(evaluator).metrics:
        if isinstance(metric, MotionMetric):
            return metric
    return None
