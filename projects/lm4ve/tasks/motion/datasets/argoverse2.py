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

from lm4ve.errors import brief
from lm4ve.tasks.motion.datasets.argoverse import ArgoverseReader, boxes_near, one_message
from lm4ve.tasks.motion.scene import (
    AGENT_TYPES,
    HEADING_METERS,
    LANE_POINTS,
    Scene,
    SceneError,
    resample,
)

HISTORY_STEPS, FUTURE_STEPS = 50, 60
#: Cities of the data set.
CITIES = ('austin', 'dearborn', 'miami', 'palo-alto', 'pittsburgh', 'washington-dc')
#: object_type -> index of AGENT_TYPES; what is not here is 'other'.
_TYPES = {name: i for i, name in enumerate(AGENT_TYPES)}
_TYPES |= dict.fromkeys(('background', 'construction', 'riderless_bicycle'), _TYPES['static'])


def read_map(path: str | Path):
    """Read a scenario's map.

    The center line is the mean of the two boundaries, each resampled to 10
    points by arc length; the file has neither turn directions nor traffic
    control.

    Args:
        path (str | Path): ``log_map_archive_*.json``.

    Returns:
        tuple[np.ndarray, np.ndarray]: Center lines ``[L, 10, 2]`` (meters) and
        bool ``[L]``, whether a lane is in an intersection.

    Raises:
        SceneError: The file is missing or not such a map.
    """
    path = Path(path)
    try:
        lanes = json.loads(path.read_text())['lane_segments'].values()
        lines = [center_line(s['left_lane_boundary'], s['right_lane_boundary']) for s in lanes]
        inside = [bool(s['is_intersection']) for s in lanes]
    except OSError as e:
        raise SceneError(
            f"The map '{path}' cannot be read: {e.strerror}. Fix: unpack the scenario again.",
            'no map',
        ) from e
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise SceneError(
            f"The map '{path}' is damaged ({type(e).__name__}: {brief(e)}); expected "
            'lane_segments with left_lane_boundary and right_lane_boundary (points with '
            'numbers x, y) and is_intersection. Fix: unpack the scenario again.',
            'damaged map',
        ) from e
    return np.array(lines).reshape(-1, LANE_POINTS, 2), np.array(inside, dtype=bool)


def center_line(left: list, right: list) -> np.ndarray:
    """Mean of two boundaries, ``[10, 2]`` meters.

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


class Argoverse2Reader(ArgoverseReader):
    """Reads scenarios of one split: the folders in ``data_dir``."""

    pattern, example = '*/scenario_*.parquet', 'data/argoverse2/train'
    content = 'Argoverse 2 motion forecasting scenarios'
    numbers = 'timestep', 'heading', 'position_x', 'position_y'
    texts = 'track_id', 'object_type', 'scenario_id', 'focal_track_id', 'city'
    history_steps, future_steps = HISTORY_STEPS, FUTURE_STEPS

    @one_message
    def read(self, path: str | Path) -> Scene:
        """Read a scenario and its map.

        Raises:
            SceneError: A file is unreadable, lacks a column or the focal track,
                has a step outside the data set's, names an unknown city, or
                :meth:`Scene.check` refuses the scene.
        """
        path = Path(path)
        try:
            # One file: `read_table` would take folders named `x=y` for partitions.
            table = parquet.ParquetFile(path).read().to_pandas()
        # pandas' own part of the file is JSON, and text may be no text: both ValueErrors.
        except (OSError, pa.ArrowException, ValueError, LookupError, TypeError) as e:
            raise SceneError(
                f"'{path}' cannot be read as parquet ({brief(e)}). Fix: unpack the scenario again.",
                'unreadable',
            ) from e
        # Whatever index was written with it: rows are counted from 0 here.
        table = self.checked(table.reset_index(drop=True), path)
        table['track_id'] = table['track_id'].astype(str)
        scene_id, city, focal = map(str, table.loc[0, ['scenario_id', 'city', 'focal_track_id']])
        if city not in CITIES:
            raise SceneError(
                f"'{path}': Argoverse 2 has no city '{brief(city)}', only "
                f'{", ".join(CITIES)}. Fix: check that the data set is '
                'Argoverse 2.',
                'unknown city',
            )
        steps, total = table['timestep'].to_numpy(), HISTORY_STEPS + FUTURE_STEPS
        if steps.min() < 0 or steps.max() >= total:
            raise SceneError(
                f"'{path}' has timesteps {steps.min()} to {steps.max()}, "
                f'expected 0 to {total - 1}. Fix: remove the file.',
                'bad table',
            )
        types = table['object_type'].map(_TYPES).fillna(_TYPES['other'])
        is_focal = (table['track_id'] == focal).to_numpy()
        return self.scene(
            table,
            path,
            steps,
            is_focal,
            f"focal_track_id '{focal}'",
            types,
            lambda *square: _lanes_near(path.parent / f'log_map_archive_{scene_id}.json', *square),
            scene_id=scene_id,
            city=city,
            heading=_standing_heading(table[is_focal & (steps < HISTORY_STEPS)]),
        )


def _lanes_near(path: Path, point: np.ndarray, distance: float) -> dict[str, np.ndarray]:
    lanes, inside = read_map(path)
    boxes = np.concatenate([lanes.min(axis=1), lanes.max(axis=1)], axis=1)
    near = boxes_near(boxes, point, distance)
    return dict(
        lanes=lanes[near],
        lane_turns=np.zeros(len(near), dtype=np.int8),
        lane_intersections=inside[near],
        lane_controls=np.zeros(len(near), dtype=bool),
    )


def _standing_heading(history: pd.DataFrame) -> float | None:
    """The file's heading of an agent that stands; None if it moves.

    A moving agent's direction is fitted as in Argoverse 1, so that models see
    one thing.
    """
    history = history.sort_values('timestep')
    points = history[['position_x', 'position_y']].to_numpy()
    if len(points) == 0 or np.linalg.norm(points[-1] - points[0]) >= HEADING_METERS / 2:
        return None
    return float(history['heading'].iloc[-1])
