"""Readers of Argoverse 1 and 2: from the table of one sequence and a map to a ``Scene``.

The data sets differ in their files, columns and maps. The package ``av2`` is not used,
since it brings kornia, numba, polars and PyAV for a table and a JSON file; the tests
compare with it.

Formats: github.com/argoai/argoverse-api (``map_api.py``, ``vector_map_loader.py``; the
paper is arXiv 1911.02620), and github.com/argoverse/av2-api
(``datasets/motion_forecasting``, ``map``; the paper is arXiv 2301.00493).
"""

import json
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
from pyarrow import parquet

from lm4ve.errors import UserError, brief
from lm4ve.tasks.motion.structures import (
    HEADING_METERS,
    LANE_POINTS,
    Scene,
    SceneError,
    resample,
)

#: ``lanes`` and ``lane_attributes`` of a city or around one scene, as in
#: :class:`lm4ve.tasks.motion.structures.Scene`.
LaneMap = tuple[np.ndarray, np.ndarray]


class ArgoverseReader:
    """Read the sequences of one split.

    Args:
        data_dir (str | Path): Folder of the split.
        map_range (float): How far around the focal agent lanes are kept along
            both axes, meters. 142 covers any square of +-100 m in its frame.

    Attributes:
        pattern (str): Glob of the sequences below the folder.
        history_steps, future_steps (int): Steps of a sequence.
        lane_margin (float): Half the width of a lane beside its center line, meters.
    """

    pattern: str
    history_steps: int
    future_steps: int
    lane_margin = 0.0

    def __init__(self, data_dir: str | Path, map_range: float = 142.0) -> None:
        self.data_dir, self.map_range = Path(data_dir), float(map_range)

    def files(self) -> list[Path]:
        """Return the paths of the sequences, sorted by number or name.

        Raises:
            UserError: There is none.
        """
        found = sorted(
            self.data_dir.glob(self.pattern), key=lambda p: (len(p.stem), p.stem)
        )
        if not found:
            raise UserError(
                f"No {self.pattern} in '{self.data_dir}', which must be one split."
            )
        return found

    def read(self, path: str | Path) -> Scene:
        """Read a sequence.

        Raises:
            SceneError: The file is damaged or no model can work on the scene.
            UserError: The map of the whole city is missing or damaged.
        """
        try:
            return self._build(*self._parse(Path(path)))
        except (
            Exception
        ) as e:  # whatever pandas, pyarrow and numpy make of damaged files
            if isinstance(e, UserError) and not isinstance(e, SceneError):
                raise
            kind = getattr(e, 'kind', type(e).__name__)
            raise SceneError(
                f"'{path}' is no usable scene: {kind} ({brief(e, 120)})", kind
            ) from e

    def _parse(self, path: Path) -> tuple[pd.DataFrame, LaneMap, dict]:
        """Read a file.

        Returns:
            tuple[pd.DataFrame, LaneMap, dict]: A row for each track and step with
            ``track`` (the agent's name), ``step``, ``x``, ``y`` (meters) and
            ``is_focal``; the map; and further fields of the scene.
        """
        raise NotImplementedError

    def _build(self, table: pd.DataFrame, lane_map: LaneMap, fields: dict) -> Scene:
        """Build the scene of what :meth:`_parse` returns, with the lanes near the focal agent."""
        if table.isna().any(axis=None):
            raise SceneError('empty cells')
        rows, names = pd.factorize(table['track'])
        focal = np.unique(rows[table['is_focal']])
        if len(focal) != 1:
            raise SceneError('no focal agent')
        at = rows, table['step'].to_numpy()
        shape = len(names), self.history_steps + self.future_steps
        positions, valid = np.zeros((*shape, 2)), np.zeros(shape, dtype=bool)
        positions[at], valid[at] = table[['x', 'y']], True
        history = valid[focal[0], : self.history_steps]
        if history.sum() < 2 or not history[-1]:
            raise SceneError('no history')  # to forecast from
        here, reach = (
            positions[focal[0], self.history_steps - 1],
            self.map_range + self.lane_margin,
        )
        lanes, attributes = lane_map
        low, high = lanes.min(axis=1), lanes.max(axis=1)
        near = ((low <= here + reach) & (high >= here - reach)).all(axis=1)
        scene = Scene(
            track_ids=[str(name) for name in names],
            positions=positions,
            valid=valid,
            focal=int(focal[0]),
            history_steps=self.history_steps,
            map_range=self.map_range,
            lanes=lanes[near],
            lane_attributes=attributes[near],
            **fields,
        )
        if not all(
            np.isfinite(x).all()
            for x in (positions, scene.lanes, np.array(scene.heading))
        ):
            raise SceneError('not finite')
        return scene


# --------------------------------------------------------------------------------------
# Argoverse 1
#: Cities of the data set and the number in their map files' names.
CITY_IDS = {'PIT': 10314, 'MIA': 10316}
#: The tags of a lane that become its attributes, and the numbers for their values.
TAGS = 'turn_direction', 'is_intersection', 'has_traffic_control'
_TAG_VALUES = {'NONE': 0, 'LEFT': -1, 'RIGHT': 1, 'False': 0, 'True': 1}

# A sequence: <split>/data/<number>.csv, 10 Hz, 20 steps of history and 30 of future
# (none in the test set); the focal agent is the one whose OBJECT_TYPE is AGENT.
#
#     TIMESTAMP,TRACK_ID,OBJECT_TYPE,X,Y,CITY_NAME
#     315968000.0,00000000-0000-0000-0000-000000000001,OTHERS,1523.4,310.8,PIT
_CSV_COLUMNS = dict(
    TIMESTAMP=float, TRACK_ID=str, OBJECT_TYPE=str, X=float, Y=float, CITY_NAME=str
)


@cache
def read_city_map(folder: str | Path, city: str) -> LaneMap:
    """Read the lanes of one city.

    Args:
        folder (str | Path): ``map_files``.
        city (str): 'PIT' or 'MIA'.
    """
    # <node id="0" x="1523.4" y="310.8"/>
    # <way lane_id="9600000"><tag k="turn_direction" v="LEFT"/> ... <nd ref="0"/> ...
    # </way>
    path = Path(folder) / f'pruned_argoverse_{city}_{CITY_IDS[city]}_vector_map.xml'
    root = ElementTree.parse(path).getroot()
    nodes = {
        n.attrib['id']: [float(n.attrib[c]) for c in 'xy'] for n in root.iter('node')
    }
    ways = sorted(root.iter('way'), key=lambda way: int(way.attrib['lane_id']))
    lines = [np.array([nodes[n.attrib['ref']] for n in way.iter('nd')]) for way in ways]
    tags = [{t.attrib['k']: t.attrib['v'] for t in way.iter('tag')} for way in ways]
    attributes = [[_TAG_VALUES[t[name]] for name in TAGS] for t in tags]
    lanes = np.stack([_ten_points(line) for line in lines])
    return lanes, np.array(attributes, dtype=np.float32)


def _ten_points(line: np.ndarray) -> np.ndarray:
    """Return ten points; fewer are padded by the last, as in mmTransformer's map."""
    if len(line) > LANE_POINTS:
        return resample(line)
    return np.pad(line, ((0, LANE_POINTS - len(line)), (0, 0)), mode='edge')


class Argoverse1Reader(ArgoverseReader):
    """Read sequences of one split; a map is read once, when it is needed.

    Args:
        data_dir (str | Path): Folder of the CSV files.
        map_dir (str | Path): ``map_files``.
        map_range (float): See :class:`ArgoverseReader`.
    """

    pattern = '*.csv'
    history_steps, future_steps = 20, 30
    lane_margin = 1.9  # as in ``centerline_utils.py``

    def __init__(
        self, data_dir: str | Path, map_dir: str | Path, map_range: float = 142.0
    ) -> None:
        super().__init__(data_dir, map_range)
        self.map_dir = Path(map_dir)

    def city_map(self, city: str) -> LaneMap:
        """Return the map of a city.

        Raises:
            SceneError: The data set has no such city.
            UserError: The map is missing or damaged.
        """
        if city not in CITY_IDS:
            raise SceneError('unknown city')
        try:
            return read_city_map(self.map_dir, city)
        except Exception as e:  # whatever a damaged file raises
            advice = 'Fix: unpack hd_maps.tar.gz and give its folder map_files.'
            problem = f"The map of {city} in '{self.map_dir}' cannot be read"
            raise UserError(f'{problem} ({brief(e, 200)}). {advice}') from e

    def _parse(self, path: Path) -> tuple[pd.DataFrame, LaneMap, dict]:
        table = pd.read_csv(path, usecols=list(_CSV_COLUMNS), dtype=_CSV_COLUMNS)
        (city,) = table['CITY_NAME'].unique()
        times, steps = np.unique(table['TIMESTAMP'], return_inverse=True)
        if len(times) not in (
            self.history_steps,
            self.history_steps + self.future_steps,
        ):
            raise SceneError('other time steps')
        table = table.rename(columns=dict(TRACK_ID='track', X='x', Y='y'))
        table = table.assign(step=steps, is_focal=table['OBJECT_TYPE'] == 'AGENT')
        return table, self.city_map(city), dict(scene_id=path.stem, city=city)


# --------------------------------------------------------------------------------------
# Argoverse 2 A scenario: <id>/scenario_<id>.parquet, 10 Hz, 50 steps of history and 60
# of future (none in the test set), one row a track and step:
#
#     scenario_id  city    focal_track_id  track_id  timestep  position_x  position_y
# heading
#     0a1b...      austin  138             138       0         1523.4      310.8
# 1.57
_PARQUET_COLUMNS = (
    *('scenario_id', 'city', 'focal_track_id', 'track_id'),
    *('timestep', 'position_x', 'position_y', 'heading'),
)


def read_map(path: str | Path) -> LaneMap:
    """Read a scenario's map, ``log_map_archive_<id>.json``.

    The center line is the mean of the two boundaries, each resampled to 10
    points by arc length; the file has neither turn directions nor traffic
    control.
    """
    # {"lane_segments": {"<id>": {"left_lane_boundary": [{"x": 1.0, "y": 2.0, "z": 0.0},
    # ...],
    #   "right_lane_boundary": [...], "is_intersection": false, ...}, ...}, ...}
    segments = json.loads(Path(path).read_text())['lane_segments'].values()
    lines = [
        center_line(s['left_lane_boundary'], s['right_lane_boundary']) for s in segments
    ]
    attributes = [(0.0, bool(s['is_intersection']), 0.0) for s in segments]
    shaped = np.array(lines).reshape(-1, LANE_POINTS, 2)
    return shaped, np.array(attributes, dtype=np.float32).reshape(-1, 3)


def center_line(left: list[dict], right: list[dict]) -> np.ndarray:
    """Return the mean of two boundaries, ``[10, 2]`` meters.

    Args:
        left, right (list[dict]): Points with x, y (and z, which counts for the
            arc length as in av2-api).
    """
    lines = []
    for side in (left, right):
        points = np.array([[p['x'], p['y'], p.get('z', 0.0)] for p in side])
        lines.append(resample(points))
    return np.mean(lines, axis=0)[:, :2]


class Argoverse2Reader(ArgoverseReader):
    """Read scenarios of one split: the folders in ``data_dir``."""

    pattern = '*/scenario_*.parquet'
    history_steps, future_steps = 50, 60

    def _parse(self, path: Path) -> tuple[pd.DataFrame, LaneMap, dict]:
        # One file: `read_table` would treat folders named `x=y` as partitions.
        columns = parquet.ParquetFile(path).read().select(_PARQUET_COLUMNS)
        table = columns.to_pandas(ignore_metadata=True)
        if table['timestep'].min() < 0:
            raise SceneError('other time steps')
        scene_id, city, focal = map(
            str, table.loc[0, ['scenario_id', 'city', 'focal_track_id']]
        )
        table = table.rename(
            columns=dict(timestep='step', position_x='x', position_y='y')
        )
        table['track'] = table['track_id'].astype(str)
        table['is_focal'] = table['track'] == focal
        history = table[table['is_focal'] & (table['step'] < self.history_steps)]
        heading = _standing_heading(history.sort_values('step'))
        lanes = read_map(path.parent / f'log_map_archive_{scene_id}.json')
        return table, lanes, dict(scene_id=scene_id, city=city, heading=heading)


def _standing_heading(history: pd.DataFrame) -> float | None:
    """Return the file's heading of an agent that stands; None if it moves.

    A moving agent's direction is fitted as in Argoverse 1, so that models see
    one thing.
    """
    points = history[['x', 'y']].to_numpy()
    if len(points) == 0 or np.linalg.norm(points[-1] - points[0]) >= HEADING_METERS / 2:
        return None
    return float(history['heading'].iloc[-1])
