"""Argoverse 1: CSV sequences and the vector maps of two cities.

Formats: github.com/argoai/argoverse-api (``map_api.py``,
``vector_map_loader.py``); the paper is arXiv 1911.02620. A sequence is a CSV
``TIMESTAMP,TRACK_ID,OBJECT_TYPE,X,Y,CITY_NAME``, 10 Hz, 20 steps of history and 30
of future (none in the test set); the maps are a folder ``map_files``.
"""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pandas as pd

from lm4ve.errors import UserError
from lm4ve.tasks.motion.scene import AGENT_TYPES, LANE_POINTS, TURNS, Scene, SceneError, resample

HISTORY_STEPS, FUTURE_STEPS = 20, 30
#: Cities of the data set and the number in their map files' names.
CITY_IDS = {'PIT': 10314, 'MIA': 10316}
COLUMNS = ('TIMESTAMP', 'TRACK_ID', 'OBJECT_TYPE', 'X', 'Y', 'CITY_NAME')
#: Half the width of a lane, metres (``centerline_utils.py``).
HALF_WIDTH = 1.9


class Argoverse1Map:
    """Lanes of one city.

    Args:
        folder (str | Path): ``map_files``.
        city (str): 'PIT' or 'MIA'.

    Attributes:
        lane_ids (np.ndarray): int64 ``[L]``.
        lines (np.ndarray): float64 ``[L, 10, 2]``, metres.
        turns, intersections, controls (np.ndarray): ``[L]``, as in
            :class:`lm4ve.tasks.motion.scene.Scene`.
        boxes (np.ndarray): float64 ``[L, 4]``, xmin, ymin, xmax, ymax of the
            lanes' areas: of the city's table if that is there, else of the centre
            line widened to a lane's width.

    Raises:
        UserError: The city is unknown; a file is missing or damaged.
    """

    def __init__(self, folder: str | Path, city: str) -> None:
        if city not in CITY_IDS:
            raise SceneError(
                f"Argoverse 1 has no city '{city}' (CITY_NAME), only "
                f'{", ".join(CITY_IDS)}. Fix: check the sequence, or that the '
                'data set is Argoverse 1.',
                'unknown city',
            )
        self.folder, self.city = Path(folder), city
        stem = f'{city}_{CITY_IDS[city]}'
        path = self.folder / f'pruned_argoverse_{stem}_vector_map.xml'
        if not path.is_file():
            raise UserError(
                f"The map '{path}' does not exist. Fix: unpack hd_maps.tar.gz "
                'and give its folder map_files.'
            )
        try:
            ways = _read_ways(path)
        except (ElementTree.ParseError, KeyError, ValueError) as e:
            raise UserError(
                f"The map '{path}' is damaged ({type(e).__name__}: {e}). Fix: "
                'unpack hd_maps.tar.gz again.'
            ) from e
        self.lane_ids = np.array(sorted(ways), dtype=np.int64)
        rows = [ways[i] for i in self.lane_ids]
        self.lines = np.array([_ten_points(r['line']) for r in rows])
        self.turns = np.array([TURNS.index(r['turn_direction']) for r in rows], dtype=np.int8)
        self.intersections = np.array([r['is_intersection'] for r in rows])
        self.controls = np.array([r['has_traffic_control'] for r in rows])
        self.boxes = self._boxes(stem)

    def _boxes(self, stem: str) -> np.ndarray:
        low, high = self.lines.min(axis=1), self.lines.max(axis=1)
        boxes = np.concatenate([low - HALF_WIDTH, high + HALF_WIDTH], axis=1)
        table = self.folder / f'{stem}_halluc_bbox_table.npy'
        names = self.folder / f'{stem}_tableidx_to_laneid_map.json'
        if not (table.is_file() and names.is_file()):
            return boxes
        rows = np.load(table, allow_pickle=False)
        place = {int(lane): i for i, lane in enumerate(self.lane_ids)}
        for row, lane in json.loads(names.read_text()).items():
            if int(lane) in place:
                boxes[place[int(lane)]] = rows[int(row)]
        return boxes

    def near(self, point: np.ndarray, distance: float) -> np.ndarray:
        """Indices of lanes whose box overlaps a square around ``point``."""
        x, y = point
        b = self.boxes
        return np.flatnonzero(
            (b[:, 0] <= x + distance)
            & (b[:, 2] >= x - distance)
            & (b[:, 1] <= y + distance)
            & (b[:, 3] >= y - distance)
        )


def _ten_points(line: np.ndarray) -> np.ndarray:
    """Ten points; fewer are padded by the last, as in mmTransformer's map."""
    if len(line) == LANE_POINTS:
        return line
    if len(line) > LANE_POINTS:
        return resample(line)
    return np.concatenate([line, np.repeat(line[-1:], LANE_POINTS - len(line), axis=0)])


def _read_ways(path: Path) -> dict[int, dict]:
    """Lane id -> its centre line ``[n, 2]`` and tags."""
    nodes, ways = {}, {}
    for child in ElementTree.parse(path).getroot():
        if child.tag == 'node':
            nodes[child.attrib['id']] = (float(child.attrib['x']), float(child.attrib['y']))
        elif child.tag == 'way':
            tags, refs = {}, []
            for item in child:
                if item.tag == 'nd':
                    refs.append(item.attrib['ref'])
                elif item.tag == 'tag':
                    tags[item.attrib['k']] = item.attrib['v']
            ways[int(child.attrib['lane_id'])] = dict(
                line=np.array([nodes[r] for r in refs]),
                turn_direction=tags['turn_direction'],
                is_intersection=tags['is_intersection'] == 'True',
                has_traffic_control=tags['has_traffic_control'] == 'True',
            )
    return ways


class Argoverse1Reader:
    """Reads sequences of one split; a map is read once, when it is needed.

    Args:
        data_dir (str | Path): Folder of the CSV files.
        map_dir (str | Path): ``map_files``.
        map_range (float): How far around the focal agent lanes are kept along
            both axes, metres. 142 covers any square of +-100 m in its frame.
    """

    def __init__(self, data_dir: str | Path, map_dir: str | Path, map_range: float = 142.0) -> None:
        self.data_dir, self.map_dir = Path(data_dir), Path(map_dir)
        self.map_range = float(map_range)
        self._maps: dict[str, Argoverse1Map] = {}

    def files(self) -> list:
        """Paths of the sequences, sorted by number.

        Raises:
            UserError: There is none.
        """
        found = sorted(self.data_dir.glob('*.csv'), key=lambda p: (len(p.stem), p.stem))
        if not found:
            raise UserError(
                f"No *.csv in '{self.data_dir}'. Fix: give the folder of one "
                'split, for example data/argoverse1/train/data.'
            )
        return found

    def city_map(self, city: str) -> Argoverse1Map:
        if city not in self._maps:
            self._maps[city] = Argoverse1Map(self.map_dir, city)
        return self._maps[city]

    def read(self, path: str | Path) -> Scene:
        """Read a sequence.

        Raises:
            SceneError: The file is unreadable, lacks a column or the focal
                agent, has steps that are not those of the data set, names an
                unknown city, or :meth:`Scene.check` refuses it.
        """
        path = Path(path)
        table = _read_table(path)
        cities = table['CITY_NAME'].unique()
        if len(cities) != 1:
            raise SceneError(
                f"'{path}' names {len(cities)} cities, expected one. Fix: remove the file.",
                'bad table',
            )
        city_map = self.city_map(str(cities[0]))
        times = np.unique(table['TIMESTAMP'].to_numpy())
        if len(times) not in (HISTORY_STEPS, HISTORY_STEPS + FUTURE_STEPS):
            raise SceneError(
                f"'{path}' has {len(times)} time stamps, expected "
                f'{HISTORY_STEPS + FUTURE_STEPS} (or {HISTORY_STEPS} in a test '
                'set). Fix: remove the file.',
                'bad table',
            )
        tracks, track_ids = pd.factorize(table['TRACK_ID'])
        shape = len(track_ids), HISTORY_STEPS + FUTURE_STEPS
        positions, valid = np.zeros((*shape, 2)), np.zeros(shape, dtype=bool)
        steps = np.searchsorted(times, table['TIMESTAMP'].to_numpy())
        positions[tracks, steps] = table[['X', 'Y']].to_numpy()
        valid[tracks, steps] = True
        focal = np.unique(tracks[(table['OBJECT_TYPE'] == 'AGENT').to_numpy()])
        if len(focal) != 1:
            raise SceneError(
                f"'{path}' has {len(focal)} tracks with OBJECT_TYPE AGENT, "
                'expected one. Fix: remove the file.',
                'no focal agent',
            )
        origin = positions[focal[0], HISTORY_STEPS - 1]
        near = city_map.near(origin, self.map_range) if np.isfinite(origin).all() else []
        # The classes are AGENT, AV, OTHERS: the focal agents are vehicles.
        kinds = np.full(len(track_ids), AGENT_TYPES.index('other'), np.int8)
        kinds[tracks[(table['OBJECT_TYPE'] != 'OTHERS').to_numpy()]] = 0
        return Scene(
            scene_id=path.stem,
            city=city_map.city,
            track_ids=[str(t) for t in track_ids],
            agent_types=kinds,
            positions=positions,
            valid=valid,
            focal=int(focal[0]),
            history_steps=HISTORY_STEPS,
            lanes=city_map.lines[near],
            lane_turns=city_map.turns[near],
            lane_intersections=city_map.intersections[near],
            lane_controls=city_map.controls[near],
            map_range=self.map_range,
        ).check()


def _read_table(path: Path) -> pd.DataFrame:
    types = dict(TRACK_ID=str, OBJECT_TYPE=str, CITY_NAME=str)
    try:
        table = pd.read_csv(path, dtype=types)
    except (OSError, ValueError, pd.errors.ParserError) as e:
        raise SceneError(
            f"'{path}' cannot be read as CSV: {e}. Fix: unpack it again.", 'unreadable'
        ) from e
    missing = [c for c in COLUMNS if c not in table]
    if missing:
        raise SceneError(
            f"'{path}' lacks the column(s) {', '.join(missing)}; it has "
            f'{", ".join(map(str, table.columns))}. Fix: give Argoverse 1 '
            'forecasting sequences.',
            'missing columns',
        )
    if table[list(COLUMNS)].isna().any(axis=None):
        raise SceneError(
            f"'{path}' has empty or NaN cells. Fix: repair or remove the file.", 'not finite'
        )
    return table
