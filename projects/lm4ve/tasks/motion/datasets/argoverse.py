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
from lm4ve.geometry.plane import resample
from lm4ve.tasks.motion.structures import (
    DETAILED_LANE_POINTS,
    HEADING_METERS,
    LANE_POINTS,
    STATIC,
    AgentMotion,
    Scene,
    SceneError,
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
        detailed (bool): Whether scenes have :class:`AgentMotion`, and more points a lane.
    """

    pattern: str
    history_steps: int
    future_steps: int
    lane_margin = 0.0
    detailed = False

    def __init__(self, data_dir: str | Path, map_range: float = 142.0) -> None:
        self.data_dir = Path(data_dir)
        self.map_range = float(map_range)

    def files(self) -> list[Path]:
        """Return the paths of the sequences, sorted by number or name.

        Raises:
            UserError: There is none.
        """
        found = sorted(self.data_dir.glob(self.pattern), key=_by_number_or_name)
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
            table, lane_map, fields = self._parse(Path(path))
            return self._build(table, lane_map, fields)
        except SceneError as e:
            raise _error_of_file(path, e, e.kind) from e
        except UserError:
            raise
        # Whatever pandas, pyarrow and numpy make of damaged files.
        except Exception as e:
            raise _error_of_file(path, e, type(e).__name__) from e

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
        agents, names = pd.factorize(table['track'])
        focal_agents = np.unique(agents[table['is_focal']])
        if len(focal_agents) != 1:
            raise SceneError('no focal agent')
        focal = int(focal_agents[0])

        shape = len(names), self.history_steps + self.future_steps
        observed = agents, table['step'].to_numpy()
        positions = np.zeros((*shape, 2))
        positions[observed] = table[['x', 'y']]
        valid = np.zeros(shape, dtype=bool)
        valid[observed] = True
        history = valid[focal, : self.history_steps]
        if history.sum() < 2 or not history[-1]:
            raise SceneError('no history')  # to forecast from

        lanes, attributes = lane_map
        near = self._is_near(positions[focal, self.history_steps - 1], lanes)
        motion = self._read_motion(table, observed, shape)
        scene = Scene(
            track_ids=[str(name) for name in names],
            positions=positions,
            valid=valid,
            focal=focal,
            history_steps=self.history_steps,
            map_range=self.map_range,
            lanes=lanes[near],
            lane_attributes=attributes[near],
            motion=motion,
            **fields,
        )
        for numbers in (positions, scene.lanes, scene.heading):
            if not np.isfinite(numbers).all():
                raise SceneError('not finite')
        return scene

    def _read_motion(
        self,
        table: pd.DataFrame,
        observed: tuple[np.ndarray, np.ndarray],
        shape: tuple[int, int],
    ) -> AgentMotion | None:
        """Return what the table knows of agents beside their positions.

        Args:
            table (pd.DataFrame): What :meth:`_parse` returns.
            observed (tuple[np.ndarray, np.ndarray]): Agent and step of each row.
            shape (tuple[int, int]): A and T.

        Returns:
            AgentMotion | None: None: nothing.
        """
        return None

    def _is_near(self, origin: np.ndarray, lanes: np.ndarray) -> np.ndarray:
        """Return which lanes reach into the square around the origin, bool ``[L]``."""
        reach = self.map_range + self.lane_margin
        begins_before_end = lanes.min(axis=1) <= origin + reach
        ends_after_begin = lanes.max(axis=1) >= origin - reach
        return (begins_before_end & ends_after_begin).all(axis=1)


def _by_number_or_name(path: Path) -> tuple[int, str]:
    """Sort key: shorter numbers are smaller ones, and names of one length are alphabetic."""
    return len(path.stem), path.stem


def _error_of_file(path: str | Path, error: Exception, kind: str) -> SceneError:
    """Return a scene's error that names its file; ``kind`` is how skipped files are counted."""
    message = f"'{path}' is no usable scene: {kind} ({brief(error, 120)})"
    return SceneError(message, kind)


# --------------------------------------------------------------------------------------
# Argoverse 1
#: Cities of the data set and the number in their map files' names.
CITY_IDS = {'PIT': 10314, 'MIA': 10316}
#: The tags of a lane that become its attributes, and the numbers for their values.
TAGS = ('turn_direction', 'is_intersection', 'has_traffic_control')
_TAG_VALUES = {'NONE': 0, 'LEFT': -1, 'RIGHT': 1, 'False': 0, 'True': 1}

# A sequence: <split>/data/<number>.csv, 10 Hz, 20 steps of history and 30 of future
# (none in the test set); the focal agent is the one whose OBJECT_TYPE is AGENT.
#
#     TIMESTAMP,TRACK_ID,OBJECT_TYPE,X,Y,CITY_NAME
#     315968000.0,00000000-0000-0000-0000-000000000001,OTHERS,1523.4,310.8,PIT
_CSV_COLUMNS = {
    'TIMESTAMP': float,
    'TRACK_ID': str,
    'OBJECT_TYPE': str,
    'X': float,
    'Y': float,
    'CITY_NAME': str,
}


@cache
def read_city_map(folder: str | Path, city: str) -> LaneMap:
    """Read the lanes of one city.

    Args:
        folder (str | Path): ``map_files``.
        city (str): 'PIT' or 'MIA'.
    """
    # <node id="0" x="1523.4" y="310.8"/>
    # <way lane_id="9600000">
    #   <tag k="turn_direction" v="LEFT"/> ... <nd ref="0"/> ...
    # </way>
    root = ElementTree.parse(city_map_file(folder, city)).getroot()
    nodes = {}
    for node in root.iter('node'):
        nodes[node.attrib['id']] = float(node.attrib['x']), float(node.attrib['y'])
    lines = []
    attributes = []
    for way in sorted(root.iter('way'), key=_lane_id):
        line = [nodes[point.attrib['ref']] for point in way.iter('nd')]
        lines.append(_ten_points(np.array(line)))
        tags = {tag.attrib['k']: tag.attrib['v'] for tag in way.iter('tag')}
        attributes.append([_TAG_VALUES[tags[name]] for name in TAGS])
    return np.stack(lines), np.array(attributes, dtype=np.float32)


def city_map_file(folder: str | Path, city: str) -> Path:
    """Return the path of a city's map in ``map_files``."""
    return Path(folder) / f'pruned_argoverse_{city}_{CITY_IDS[city]}_vector_map.xml'


def _lane_id(way: ElementTree.Element) -> int:
    """Sort key: lanes in the order of their numbers."""
    return int(way.attrib['lane_id'])


def _ten_points(line: np.ndarray) -> np.ndarray:
    """Return a line ``[n, 2]`` as ten points.

    A longer line is resampled; a shorter one repeats its last point, as in
    mmTransformer's map.
    """
    if len(line) > LANE_POINTS:
        return resample(line, LANE_POINTS)
    return np.pad(line, ((0, LANE_POINTS - len(line)), (0, 0)), mode='edge')


class Argoverse1Reader(ArgoverseReader):
    """Read sequences of one split; a map is read once, when it is needed.

    Args:
        data_dir (str | Path): Folder of the CSV files.
        map_dir (str | Path): ``map_files``.
        map_range (float): See :class:`ArgoverseReader`.
    """

    pattern = '*.csv'
    history_steps = 20
    future_steps = 30
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
            raise UserError(
                f"The map of {city} in '{self.map_dir}' cannot be read ({brief(e, 200)}). "
                'Fix: unpack hd_maps.tar.gz and give its folder map_files.'
            ) from e

    def _parse(self, path: Path) -> tuple[pd.DataFrame, LaneMap, dict]:
        """Read a CSV file; the focal agent is the one of type AGENT."""
        table = pd.read_csv(path, usecols=list(_CSV_COLUMNS), dtype=_CSV_COLUMNS)
        (city,) = table['CITY_NAME'].unique()
        times, steps = np.unique(table['TIMESTAMP'], return_inverse=True)
        # Without the future in a test set.
        lengths = (self.history_steps, self.history_steps + self.future_steps)
        if len(times) not in lengths:
            raise SceneError('other time steps')
        table = table.rename(columns=dict(TRACK_ID='track', X='x', Y='y'))
        table = table.assign(step=steps, is_focal=table['OBJECT_TYPE'] == 'AGENT')
        return table, self.city_map(city), dict(scene_id=path.stem, city=city)


# --------------------------------------------------------------------------------------
# Argoverse 2
#
# A scenario: <id>/scenario_<id>.parquet, 10 Hz, 50 steps of history and 60 of future
# (none in the test set), one row a track and step. Beside it lies its map.
_PARQUET_COLUMNS = (
    'scenario_id',  # '0a1b...'
    'city',  # 'austin'
    'focal_track_id',  # '138'
    'track_id',  # '138'
    'timestep',  # 0
    'position_x',  # 1523.4
    'position_y',  # 310.8
    'heading',  # 1.57
)
#: What detailed scenes need, too.
_DETAILED_COLUMNS = (
    'object_type',  # 'vehicle'
    'velocity_x',  # 8.1
    'velocity_y',  # 0.2
)
#: RealMotion's kind of each type of object (``OBJECT_TYPE_MAP_COMBINED``).
_KINDS = dict(
    vehicle=0,
    bus=0,
    pedestrian=1,
    motorcyclist=2,
    cyclist=2,
    static=STATIC,
    background=STATIC,
    construction=STATIC,
    riderless_bicycle=STATIC,
    unknown=STATIC,
)


def read_map(path: str | Path, lane_points: int = LANE_POINTS) -> LaneMap:
    """Read a scenario's map, ``log_map_archive_<id>.json``.

    The center line is the mean of the two boundaries, each resampled to
    ``lane_points`` points by arc length; the file has neither turn directions nor
    traffic control.
    """
    # {"lane_segments": {"<id>": {
    #   "left_lane_boundary": [{"x": 1.0, "y": 2.0, "z": 0.0}, ...],
    #   "right_lane_boundary": [...], "is_intersection": false, ...}, ...}, ...}
    lines = []
    attributes = []
    for segment in json.loads(Path(path).read_text())['lane_segments'].values():
        left = segment['left_lane_boundary']
        right = segment['right_lane_boundary']
        lines.append(center_line(left, right, lane_points))
        attributes.append((0.0, bool(segment['is_intersection']), 0.0))
    # The shapes hold for a map without lanes, too.
    lanes = np.array(lines).reshape(-1, lane_points, 2)
    return lanes, np.array(attributes, dtype=np.float32).reshape(-1, 3)


def center_line(
    left: list[dict], right: list[dict], count: int = LANE_POINTS
) -> np.ndarray:
    """Return the line in the middle of two boundaries, ``[count, 2]`` meters.

    Each is resampled to so many points at equal distances along it; the line is their
    mean.

    Args:
        left, right (list[dict]): Points with x, y and perhaps z, in one direction. z
            counts for the distances, as in av2-api, and is dropped then.
        count (int): Points of the line.
    """
    lines = []
    for side in (left, right):
        points = np.array([[p['x'], p['y'], p.get('z', 0.0)] for p in side])
        lines.append(resample(points, count))
    return np.mean(lines, axis=0)[:, :2]


class Argoverse2Reader(ArgoverseReader):
    """Read scenarios of one split: the folders in ``data_dir``.

    Args:
        data_dir (str | Path): Folder of the split.
        map_range (float): See :class:`ArgoverseReader`. 213 covers any square of
            +-150 m.
        detailed (bool): Keep agents' headings, speeds and kinds, and 20 points of a
            lane, as RealMotion needs them.
    """

    pattern = '*/scenario_*.parquet'
    history_steps = 50
    future_steps = 60

    def __init__(
        self, data_dir: str | Path, map_range: float = 142.0, detailed: bool = False
    ) -> None:
        super().__init__(data_dir, map_range)
        self.detailed = detailed

    def _parse(self, path: Path) -> tuple[pd.DataFrame, LaneMap, dict]:
        """Read a Parquet file and the map beside it; the file names its focal agent."""
        # One file: `read_table` would treat folders named `x=y` as partitions.
        names: tuple[str, ...] = _PARQUET_COLUMNS
        lane_points = LANE_POINTS
        if self.detailed:
            names = (*_PARQUET_COLUMNS, *_DETAILED_COLUMNS)
            lane_points = DETAILED_LANE_POINTS
        columns = parquet.ParquetFile(path).read().select(names)
        table = columns.to_pandas(ignore_metadata=True)
        if table['timestep'].min() < 0:
            raise SceneError('other time steps')
        first = table.loc[0]
        scene_id = str(first['scenario_id'])
        city = str(first['city'])
        renamed = dict(timestep='step', position_x='x', position_y='y')
        table = table.rename(columns=renamed)
        table['track'] = table['track_id'].astype(str)
        table['is_focal'] = table['track'] == str(first['focal_track_id'])
        history = table[table['is_focal'] & (table['step'] < self.history_steps)]
        heading = _standing_heading(history.sort_values('step'))
        lanes = read_map(path.parent / f'log_map_archive_{scene_id}.json', lane_points)
        return table, lanes, dict(scene_id=scene_id, city=city, heading=heading)

    def _read_motion(
        self,
        table: pd.DataFrame,
        observed: tuple[np.ndarray, np.ndarray],
        shape: tuple[int, int],
    ) -> AgentMotion | None:
        """Return headings, speeds and kinds of a detailed scene."""
        if not self.detailed:
            return None
        headings = np.zeros(shape, np.float32)
        headings[observed] = table['heading']
        speeds = np.zeros(shape, np.float32)
        speeds[observed] = np.hypot(table['velocity_x'], table['velocity_y'])
        kinds = np.zeros(shape[0], np.int8)
        agents, _ = observed
        kinds[agents] = table['object_type'].map(_KINDS)
        return AgentMotion(headings, speeds, kinds)


def _standing_heading(history: pd.DataFrame) -> float | None:
    """Return the file's heading of an agent that stands; None if it moves.

    A moving agent's direction is fitted as in Argoverse 1, so that models see
    one thing.
    """
    points = history[['x', 'y']].to_numpy()
    if len(points) == 0:
        return None
    moves = np.linalg.norm(points[-1] - points[0]) >= HEADING_METERS / 2
    if moves:
        return None
    return float(history['heading'].iloc[-1])
