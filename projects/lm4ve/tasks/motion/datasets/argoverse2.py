"""Argoverse 2: scenario parquet and map JSON, read without the ``av2`` package.

Formats: github.com/argoverse/av2-api (``datasets/motion_forecasting``, ``map``);
the paper is arXiv 2301.00493.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from pyarrow import parquet

from lm4ve.tasks.motion.datasets.argoverse import ArgoverseReader, LaneMap
from lm4ve.tasks.motion.scene import AGENT_TYPES, HEADING_METERS, LANE_POINTS, SceneError, resample

#: object_type -> index of AGENT_TYPES; what is not here is 'other'.
_TYPES = {name: i for i, name in enumerate(AGENT_TYPES)}
_TYPES |= dict.fromkeys(('background', 'construction', 'riderless_bicycle'), _TYPES['static'])

# A scenario: <id>/scenario_<id>.parquet, 10 Hz, 50 steps of history and 60 of future (none in
# the test set), one row a track and step:
#
#     scenario_id  city    focal_track_id  track_id  object_type  timestep  position_x ... heading
#     0a1b...      austin  138             138       vehicle      0         1523.4     ... 1.57
_COLUMNS = (
    *('scenario_id', 'city', 'focal_track_id', 'track_id', 'object_type'),
    *('timestep', 'position_x', 'position_y', 'heading'),
)


def read_map(path: str | Path) -> LaneMap:
    """Read a scenario's map, ``log_map_archive_<id>.json``.

    The center line is the mean of the two boundaries, each resampled to 10
    points by arc length; the file has neither turn directions nor traffic
    control.
    """
    # {"lane_segments": {"<id>": {"left_lane_boundary": [{"x": 1.0, "y": 2.0, "z": 0.0}, ...],
    #   "right_lane_boundary": [...], "is_intersection": false, ...}, ...}, ...}
    lanes = json.loads(Path(path).read_text())['lane_segments'].values()
    lines = [center_line(s['left_lane_boundary'], s['right_lane_boundary']) for s in lanes]
    return dict(
        lanes=np.array(lines).reshape(-1, LANE_POINTS, 2),
        lane_turns=np.zeros(len(lines), dtype=np.int8),
        lane_intersections=np.array([bool(s['is_intersection']) for s in lanes], dtype=bool),
        lane_controls=np.zeros(len(lines), dtype=bool),
    )


def center_line(left: list[dict], right: list[dict]) -> np.ndarray:
    """Return the mean of two boundaries, ``[10, 2]`` meters.

    Args:
        left, right (list[dict]): Points with x, y (and z, which counts for the
            arc length as in av2-api).
    """
    sides = ([[p['x'], p['y'], p.get('z', 0.0)] for p in side] for side in (left, right))
    return np.mean([resample(s) for s in sides], axis=0)[:, :2]


class Argoverse2Reader(ArgoverseReader):
    """Read scenarios of one split: the folders in ``data_dir``."""

    pattern = '*/scenario_*.parquet'
    history_steps, future_steps = 50, 60

    def _parse(self, path: Path) -> tuple[pd.DataFrame, LaneMap, dict]:
        # One file: `read_table` would treat folders named `x=y` as partitions.
        table = parquet.ParquetFile(path).read().select(_COLUMNS).to_pandas(ignore_metadata=True)
        if table['timestep'].min() < 0:
            raise SceneError('other time steps')
        scene_id, city, focal = map(str, table.loc[0, ['scenario_id', 'city', 'focal_track_id']])
        table = table.rename(columns=dict(timestep='step', position_x='x', position_y='y'))
        table['track'] = table['track_id'].astype(str)
        table['is_focal'] = table['track'] == focal
        table['agent_type'] = table['object_type'].map(_TYPES).fillna(_TYPES['other'])
        history = table[table['is_focal'] & (table['step'] < self.history_steps)].sort_values(
            'step'
        )
        lanes = read_map(path.parent / f'log_map_archive_{scene_id}.json')
        return table, lanes, dict(scene_id=scene_id, city=city, heading=_standing_heading(history))


def _standing_heading(history: pd.DataFrame) -> float | None:
    """Return the file's heading of an agent that stands; None if it moves.

    A moving agent's direction is fitted as in Argoverse 1, so that models see
    one thing.
    """
    points = history[['x', 'y']].to_numpy()
    if len(points) == 0 or np.linalg.norm(points[-1] - points[0]) >= HEADING_METERS / 2:
        return None
    return float(history['heading'].iloc[-1])
