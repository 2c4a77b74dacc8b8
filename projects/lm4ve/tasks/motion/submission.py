"""Files for the evaluation servers of Argoverse 1 and 2.

Argoverse 1 (argoverse-api, ``competition_util.py``): HDF5, one data set
``argoverse_forecasting`` of rows sequence, x, y, probability, 30 rows a trajectory.
Argoverse 2 (av2-api, ``eval/submission.py``): parquet, one row a trajectory.
"""

from pathlib import Path

import numpy as np
import pandas as pd

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
    rows = []
    for f in forecasts:
        lines, p = (np.asarray(f[name], np.float64) for name in ('trajectories', 'probabilities'))
        check(f"scene '{f['scene_id']}': steps", lines.shape[1], choices=(steps,))
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
    x, y = (np.stack(table[f'predicted_trajectory_{axis}']).astype(np.float32) for axis in 'xy')
    ids, p = (np.repeat(column, x.shape[1]) for column in numbers)
    with h5py.File(path, 'w') as h:
        data = np.column_stack([ids, x.ravel(), y.ravel(), p])
        h.create_dataset('argoverse_forecasting', data=data, compression='gzip')
