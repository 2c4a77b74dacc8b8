"""Files for the evaluation servers of Argoverse 1 and 2.

Argoverse 1 (argoverse-api, ``competition_util.py``): HDF5, one data set
``argoverse_forecasting`` of rows sequence, x, y, probability, 30 rows a trajectory.
Argoverse 2 (av2-api, ``eval/submission.py``): parquet, one row a trajectory.
"""

from pathlib import Path

import numpy as np

from lm4ve.errors import check
from lm4ve.files import replacing

#: Format -> (suffix, steps of a trajectory).
FORMATS = dict(argoverse1=('.h5', 30), argoverse2=('.parquet', 60))


def write_submission(path: str | Path, forecasts: list[dict], form: str) -> None:
    """Write predictions of a test set's focal agents.

    Args:
        path (str | Path): The file; its suffix must be the format's.
        forecasts (list[dict]): ``scene_id``, ``track_id``, ``trajectories``
            (``[K, F, 2]``, city coordinates in meters), ``probabilities``
            (``[K]``; normalized here, as both servers require).
        form (str): A key of :data:`FORMATS`.

    Raises:
        UserError: Suffix or number of steps are not the format's.
        ValueError: An Argoverse 1 sequence is not named by its number.
    """
    path, (suffix, steps) = Path(path), FORMATS[form]
    check(f"submission='{path}' for {form}: suffix", path.suffix, choices=(suffix,))
    for f in forecasts:
        check(f"scene '{f['scene_id']}': steps", f['trajectories'].shape[1], choices=(steps,))
    write = _write_h5 if form == 'argoverse1' else _write_parquet
    with replacing(path) as beside:
        write(beside, [_sorted(f) for f in forecasts])


def _sorted(forecast: dict) -> dict:
    """Put the best first, since servers keep the first k where probabilities tie."""
    p = np.asarray(forecast['probabilities'], dtype=np.float64)
    order = np.argsort(-p, kind='stable')
    p = p[order] / p.sum()
    return dict(forecast, probabilities=p, trajectories=np.asarray(forecast['trajectories'])[order])


def _write_h5(path: Path, forecasts: list[dict]) -> None:
    import h5py  # only this format needs it

    rows = []
    for f in forecasts:
        k, steps = f['trajectories'].shape[:2]
        table = np.empty((k * steps, 4))
        table[:, 0] = int(f['scene_id'])
        table[:, 1:3] = f['trajectories'].reshape(-1, 2).astype(np.float32)
        table[:, 3] = np.repeat(f['probabilities'], steps)
        rows.append(table)
    with h5py.File(path, 'w') as h:
        h.create_dataset('argoverse_forecasting', data=np.concatenate(rows), compression='gzip')


def _write_parquet(path: Path, forecasts: list[dict]) -> None:
    import pandas as pd  # only this format needs it

    pd.DataFrame(
        [
            dict(
                scenario_id=f['scene_id'],
                track_id=f['track_id'],
                probability=p,
                predicted_trajectory_x=line[:, 0],
                predicted_trajectory_y=line[:, 1],
            )
            for f in forecasts
            for p, line in zip(f['probabilities'], f['trajectories'], strict=True)
        ]
    ).to_parquet(path)
