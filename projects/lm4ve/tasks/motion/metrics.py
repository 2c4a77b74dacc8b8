"""minADE, minFDE, miss rate and brier-minFDE, and the files for the evaluation servers.

The two data sets' conventions differ (see :data:`CONVENTIONS`); a table must name
the one that it shows. Pure functions of numpy first, MMEngine's metric at the end. The
functions of ``av2`` are not used: they cover one convention and no unknown steps, and
bring PyAV, kornia and numba. The tests compare with them.

Argoverse 1's server reads HDF5 (argoverse-api, ``competition_util.py``): one data set
``argoverse_forecasting`` of rows sequence, x, y, probability, 30 rows a trajectory.
Argoverse 2's reads parquet (av2-api, ``eval/submission.py``): one row a trajectory.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mmengine.evaluator import BaseMetric

from lm4ve.errors import UserError, check, require
from lm4ve.files import replacing
from lm4ve.registry import METRICS

#: 'argoverse1' (argoverse-api, ``eval_forecasting.py``): minADE is the ADE of the
#: trajectory with the smallest FDE; probabilities are normalized over the K kept
#: ones before they enter brier-minFDE.
#: 'argoverse2' (code in the wild, for example Forecast-MAE): minADE is the smallest
#: ADE of all K; probabilities stay as they are (``normalize=False`` in av2-api).
#: The values are a submission's suffix and the steps of its trajectories.
CONVENTIONS = dict(argoverse1=('.h5', 30), argoverse2=('.parquet', 60))
MISS_METERS = 2.0


def forecast_metrics(
    predictions: np.ndarray,
    probabilities: np.ndarray,
    truth: np.ndarray,
    valid: np.ndarray | None = None,
    k: int = 6,
    convention: str = 'argoverse1',
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
    lines, p = (np.asarray(x, dtype=np.float64) for x in (predictions, probabilities))
    in_range = ((p >= 0) & (p <= 1 + 1e-6)).all()
    if lines.shape != (len(p), *truth.shape) or not (
        in_range and np.isfinite(lines).all()
    ):
        expected = f'finite [K, {len(truth)}, 2] and [K] from 0 to 1'
        raise ValueError(
            f'predictions {lines.shape} and probabilities {p} are not {expected}'
        )
    kept = np.argsort(-p, kind='stable')[:k]
    lines, p = lines[kept], p[kept]
    errors = np.linalg.norm(lines - truth, axis=-1)
    if valid is not None:
        errors = errors[:, valid]
    fde, ade = errors[:, -1], errors.mean(axis=1)
    best = fde.argmin()
    min_ade = ade.min()
    if convention == 'argoverse1':
        min_ade = ade[best]
        p = p / p.sum() if p.sum() > 0 else np.full(len(p), 1 / len(p))
    return {
        'minADE': float(min_ade),
        'minFDE': float(fde[best]),
        'MR': float(fde[best] > MISS_METERS),
        'brier-minFDE': float(fde[best] + (1 - p[best]) ** 2),
    }


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
    path, (suffix, steps) = Path(path), CONVENTIONS[form]
    require(
        path.suffix == suffix,
        f"submission='{path}' must end in '{suffix}', the form of {form}.",
    )
    rows = []
    for f in forecasts:
        lines, p = (
            np.asarray(f[name], np.float64)
            for name in ('trajectories', 'probabilities')
        )
        require(
            lines.shape[1] == steps,
            f"scene '{f['scene_id']}': steps are {lines.shape[1]}, but {form} takes {steps}.",
        )
        # The best first, since servers keep the first k where probabilities tie.
        for i in np.argsort(-p, kind='stable'):
            rows.append((f['scene_id'], f['track_id'], p[i] / p.sum(), *lines[i].T))
    columns = 'probability', 'predicted_trajectory_x', 'predicted_trajectory_y'
    table = pd.DataFrame(rows, columns=('scenario_id', 'track_id', *columns))
    with replacing(path) as beside:
        if form == 'argoverse2':
            table.to_parquet(beside)
        else:
            _write_h5(beside, table)


def _write_h5(path: Path, table: pd.DataFrame) -> None:
    import h5py  # only this format needs it

    numbers = table['scenario_id'].astype(int), table['probability']
    x, y = (
        np.stack(table[f'predicted_trajectory_{axis}']).astype(np.float32)
        for axis in 'xy'
    )
    ids, p = (np.repeat(column, x.shape[1]) for column in numbers)
    with h5py.File(path, 'w') as h:
        data = np.column_stack([ids, x.ravel(), y.ravel(), p])
        h.create_dataset('argoverse_forecasting', data=data, compression='gzip')


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
        convention: str = 'argoverse1',
        k: Sequence[int] = (1, 6),
        submission: str | None = None,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        check('MotionMetric.convention', convention, choices=CONVENTIONS)
        self.convention, self.k, self.submission = convention, tuple(k), submission

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        """Score a batch; keep a few numbers a scene."""
        for sample in data_samples:
            scene = sample['scene']
            result: dict[str, Any] = dict(scene_id=scene.scene_id, scores={})
            if scene.future[1].any():
                future, valid = scene.future
                for k in self.k:
                    scores = forecast_metrics(
                        sample['trajectories'],
                        sample['probabilities'],
                        future,
                        valid,
                        k,
                        self.convention,
                    )
                    result['scores'] |= {
                        f'{name}@{k}': value for name, value in scores.items()
                    }
            if self.submission is not None:
                kept = {
                    name: sample[name] for name in ('trajectories', 'probabilities')
                }
                result |= dict(kept, track_id=scene.track_ids[scene.focal])
            self.results.append(result)

    def compute_metrics(self, results: list[dict]) -> dict:
        if self.submission is not None:
            write_submission(self.submission, results, self.convention)
        scored = [r['scores'] for r in results if r['scores']]
        if not scored and self.submission is None:
            raise UserError(
                'No scene has a known future. Fix for a test set: a submission file.'
            )
        names = scored[0] if scored else ()
        means = {
            name: float(np.mean([scores[name] for scores in scored])) for name in names
        }
        return dict(means, scenes=len(scored))
