"""Argoverse 2: scenario parquet and map JSON, read without the ``av2`` package.

Formats: github.com/argoverse/av2-api (``datasets/motion_forecasting``, ``map``);
the paper is arXiv 2301.00493. A scenario is a folder
``<id>/scenario_<id>.parquet`` and ``log_map_archive_<id>.json``, 10 Hz, 50 steps of
history and 60 of future (none in the test set).
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as parquet

from lm4ve.errors import UserError
from lm4ve.tasks.motion.scene import (
    AGENT_TYPES,
    HEADING_METRES,
    LANE_POINTS,
    Scene,
    SceneError,
    resample,
)

HISTORY_STEPS, FUTURE_STEPS = 50, 60
COLUMNS = (
    'track_id',
    'object_type',
    'timestep',
    'position_x',
    'position_y',
    'heading',
    'scenario_id',
    'focal_track_id',
    'city',
)
#: Cities of the data set.
CITIES = ('austin', 'dearborn', 'miami', 'palo-alto', 'pittsburgh', 'washington-dc')
#: object_type -> one of AGENT_TYPES; what is not here is 'other'.
_STATIC = ('static', 'background', 'construction', 'riderless_bicycle')


def read_map(path: str | Path):
    """Read a scenario's map.

    The centre line is the mean of the two boundaries, each resampled to 10
    points by arc length; the file has neither turn directions nor traffic
    control.

    Args:
        path (str | Path): ``log_map_archive_*.json``.

    Returns:
        tuple[np.ndarray, np.ndarray]: Centre lines ``[L, 10, 2]`` (metres) and
        bool ``[L]``, whether a lane is in an intersection.

    Raises:
        SceneError: The file is missing or not such a map.
    """
    path = Path(path)
    try:
        lanes = json.loads(path.read_text())['lane_segments'].values()
        lines = [centre_line(s['left_lane_boundary'], s['right_lane_boundary']) for s in lanes]
        inside = [bool(s['is_intersection']) for s in lanes]
    except OSError as e:
        raise SceneError(
            f"The map '{path}' cannot be read: {e.strerror}. Fix: unpack the scenario again.",
            'no map',
        ) from e
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise SceneError(
            f"The map '{path}' is damaged ({type(e).__name__}: {e}); expected "
            'lane_segments with left_lane_boundary and right_lane_boundary (points with '
            'numbers x, y) and is_intersection. Fix: unpack the scenario again.',
            'damaged map',
        ) from e
    return np.array(lines).reshape(-1, LANE_POINTS, 2), np.array(inside, dtype=bool)


def centre_line(left: list, right: list) -> np.ndarray:
    """Mean of two boundaries, ``[10, 2]`` metres.

    Args:
        left, right (list[dict]): Points with x, y (and z, which counts for the
            arc length as in av2-api).

    Raises:
        ValueError: A boundary has no point, or a coordinate is not a number.
    """
    sides = [
        np.array([[p['x'], p['y'], p.get('z', 0.0)] for p in side], dtype=np.float64)
        for side in (left, right)
    ]
    if not all(map(len, sides)):
        raise ValueError('a lane boundary has no points')
    return np.mean([resample(s) for s in sides], axis=0)[:, :2]


class Argoverse2Reader:
    """Reads scenarios of one split.

    Args:
        data_dir (str | Path): Folder of the scenario folders.
        map_range (float): As in :class:`~lm4ve.tasks.motion.Argoverse1Reader`.
    """

    def __init__(self, data_dir: str | Path, map_range: float = 142.0) -> None:
        self.data_dir, self.map_range = Path(data_dir), float(map_range)

    def files(self) -> list:
        """Paths of the scenarios' parquet files, sorted.

        Raises:
            UserError: There is none.
        """
        found = sorted(self.data_dir.glob('*/scenario_*.parquet'))
        if not found:
            raise UserError(
                f"No <id>/scenario_<id>.parquet in '{self.data_dir}'. Fix: give "
                'the folder of one split, for example data/argoverse2/train.'
            )
        return found

    def read(self, path: str | Path) -> Scene:
        """Read a scenario and its map.

        Raises:
            SceneError: A file is unreadable, lacks a column or the focal track,
                has a step outside the data set's, names an unknown city, or
                :meth:`Scene.check` refuses the scene.
        """
        path = Path(path)
        table = _read_table(path)
        scene_id, city = str(table['scenario_id'][0]), str(table['city'][0])
        if city not in CITIES:
            raise SceneError(
                f"'{path}': Argoverse 2 has no city '{city}', only "
                f'{", ".join(CITIES)}. Fix: check that the data set is '
                'Argoverse 2.',
                'unknown city',
            )
        steps = table['timestep'].to_numpy()
        total = HISTORY_STEPS + FUTURE_STEPS
        if steps.min() < 0 or steps.max() >= total:
            raise SceneError(
                f"'{path}' has timesteps {steps.min()} to {steps.max()}, "
                f'expected 0 to {total - 1}. Fix: remove the file.',
                'bad table',
            )
        tracks, track_ids = pd.factorize(table['track_id'])
        focal = np.flatnonzero(track_ids == str(table['focal_track_id'][0]))
        if len(focal) != 1:
            raise SceneError(
                f"'{path}' has no track '{table['focal_track_id'][0]}', its "
                'focal_track_id. Fix: remove the file.',
                'no focal agent',
            )
        shape = len(track_ids), total
        positions, valid = np.zeros((*shape, 2)), np.zeros(shape, dtype=bool)
        positions[tracks, steps] = table[['position_x', 'position_y']].to_numpy()
        valid[tracks, steps] = True
        kinds = np.array([_agent_type(t) for t in table['object_type']], dtype=np.int8)
        agent_types = np.zeros(len(track_ids), dtype=np.int8)
        agent_types[tracks] = kinds
        lanes, inside = read_map(path.parent / f'log_map_archive_{scene_id}.json')
        near = _near(lanes, positions[focal[0], HISTORY_STEPS - 1], self.map_range)
        lanes, inside = lanes[near], inside[near]
        return Scene(
            scene_id=scene_id,
            city=city,
            track_ids=[str(t) for t in track_ids],
            agent_types=agent_types,
            positions=positions,
            valid=valid,
            focal=int(focal[0]),
            history_steps=HISTORY_STEPS,
            lanes=lanes,
            lane_turns=np.zeros(len(lanes), dtype=np.int8),
            lane_intersections=inside,
            lane_controls=np.zeros(len(lanes), dtype=bool),
            map_range=self.map_range,
            heading=_standing_heading(table, tracks == focal[0]),
        ).check()


def _standing_heading(table: pd.DataFrame, rows: np.ndarray):
    """The file's heading of an agent that stands; None if it moves.

    A moving agent's direction is fitted as in Argoverse 1, so that models see
    one thing.
    """
    rows = rows & (table['timestep'] < HISTORY_STEPS).to_numpy()
    if not rows.any():
        return None
    mine = table[rows].sort_values('timestep')
    points = mine[['position_x', 'position_y']].to_numpy()
    if np.linalg.norm(points[-1] - points[0]) >= HEADING_METRES / 2:
        return None
    return float(mine['heading'].iloc[-1])


def _near(lanes: np.ndarray, point: np.ndarray, distance: float) -> np.ndarray:
    if len(lanes) == 0:
        return np.zeros(0, dtype=np.int64)
    low, high = lanes.min(axis=1), lanes.max(axis=1)
    return np.flatnonzero(((low <= point + distance) & (high >= point - distance)).all(axis=1))


def _agent_type(name: str) -> int:
    if name in _STATIC:
        name = 'static'
    return AGENT_TYPES.index(name if name in AGENT_TYPES else 'other')


def _read_table(path: Path) -> pd.DataFrame:
    try:
        # One file: `read_table` would take folders named `x=y` for partitions.
        table = parquet.ParquetFile(path).read().to_pandas()
    except (OSError, pa.ArrowException) as e:
        raise SceneError(
            f"'{path}' cannot be read as parquet ({e}). Fix: unpack the scenario again.",
            'unreadable',
        ) from e
    missing = [c for c in COLUMNS if c not in table]
    if missing:
        raise SceneError(
            f"'{path}' lacks the column(s) {', '.join(missing)}; it has "
            f'{", ".join(map(str, table.columns))}. Fix: give Argoverse 2 '
            'motion forecasting scenarios.',
            'missing columns',
        )
    if len(table) == 0 or table[list(COLUMNS)].isna().any(axis=None):
        raise SceneError(
            f"'{path}' is empty or has NaN cells. Fix: repair or remove the scenario.", 'not finite'
        )
    # Whatever index was written with it: rows are counted from 0 here.
    table = table.reset_index(drop=True)
    table['track_id'] = table['track_id'].astype(str)
    return table
