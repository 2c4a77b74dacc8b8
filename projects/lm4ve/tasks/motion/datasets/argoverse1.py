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

from lm4ve.errors import UserError, brief
from lm4ve.tasks.motion.datasets.argoverse import ArgoverseReader, boxes_near, one_message
from lm4ve.tasks.motion.scene import AGENT_TYPES, LANE_POINTS, TURNS, Scene, SceneError, resample

HISTORY_STEPS, FUTURE_STEPS = 20, 30
#: Cities of the data set and the number in their map files' names.
CITY_IDS = {'PIT': 10314, 'MIA': 10316}
#: Half the width of a lane, meters (``centerline_utils.py``).
HALF_WIDTH = 1.9


class Argoverse1Map:
    """Lanes of one city.

    Args:
        folder (str | Path): ``map_files``.
        city (str): 'PIT' or 'MIA'.

    Attributes:
        lane_ids (np.ndarray): int64 ``[L]``.
        lines (np.ndarray): float64 ``[L, 10, 2]``, meters.
        turns, intersections, controls (np.ndarray): ``[L]``, as in
            :class:`lm4ve.tasks.motion.scene.Scene`.
        boxes (np.ndarray): float64 ``[L, 4]``, xmin, ymin, xmax, ymax of the
            lanes' areas: of the city's table if that is there, else of the center
            line widened to a lane's width.

    Raises:
        UserError: The city is unknown; a file is missing or damaged.
    """

    def __init__(self, folder: str | Path, city: str) -> None:
        if city not in CITY_IDS:
            raise SceneError(
                f"Argoverse 1 has no city '{brief(city)}' (CITY_NAME), only "
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
            self.lane_ids = np.array(sorted(ways), dtype=np.int64)
            rows = [ways[i] for i in self.lane_ids]
            self.lines = np.array([_ten_points(r['line']) for r in rows])
            self.turns = np.array([TURNS.index(r['turn_direction']) for r in rows], dtype=np.int8)
            self.intersections = np.array([r['is_intersection'] for r in rows])
            self.controls = np.array([r['has_traffic_control'] for r in rows])
        except Exception as e:  # whatever a damaged file raises
            raise UserError(
                f"The map '{path}' is damaged ({type(e).__name__}: {brief(e)}). Fix: "
                'unpack hd_maps.tar.gz again.'
            ) from e
        self.boxes = self._boxes(stem)

    def _boxes(self, stem: str) -> np.ndarray:
        boxes = boxes_of(self.lines)
        table = self.folder / f'{stem}_halluc_bbox_table.npy'
        names = self.folder / f'{stem}_tableidx_to_laneid_map.json'
        if not (table.is_file() and names.is_file()):
            return boxes
        try:
            rows = np.load(table, allow_pickle=False)
            if rows.ndim != 2 or rows.shape[1] != 4 or not np.isfinite(rows).all():
                raise ValueError('no finite boxes [K, 4]')
            place = {int(lane): i for i, lane in enumerate(self.lane_ids)}
            for row, lane in json.loads(names.read_text()).items():
                if not 0 <= int(row) < len(rows):
                    raise ValueError('a row that is none of the boxes')
                if int(lane) in place:
                    boxes[place[int(lane)]] = rows[int(row)]
        except Exception as e:  # whatever a damaged file raises
            raise UserError(
                f"The table '{table}' or its list '{names.name}' is damaged "
                f'({type(e).__name__}). Fix: unpack hd_maps.tar.gz again, or remove both: '
                'boxes are then made from the lanes.'
            ) from e
        return boxes

    def near(self, point: np.ndarray, distance: float) -> dict[str, np.ndarray]:
        """Lanes whose box overlaps a square around ``point``, as fields of a scene."""
        near = boxes_near(self.boxes, point, distance)
        return dict(
            lanes=self.lines[near],
            lane_turns=self.turns[near],
            lane_intersections=self.intersections[near],
            lane_controls=self.controls[near],
        )


def boxes_of(lines: np.ndarray) -> np.ndarray:
    """Boxes ``[L, 4]`` around center lines ``[L, 10, 2]`` widened to a lane's width."""
    low, high = lines.min(axis=1), lines.max(axis=1)
    return np.concatenate([low - HALF_WIDTH, high + HALF_WIDTH], axis=1)


def _ten_points(line: np.ndarray) -> np.ndarray:
    """Ten points; fewer are padded by the last, as in mmTransformer's map."""
    if len(line) == LANE_POINTS:
        return line
    if len(line) > LANE_POINTS:
        return resample(line)
    return np.concatenate([line, np.repeat(line[-1:], LANE_POINTS - len(line), axis=0)])


def _read_ways(path: Path) -> dict[int, dict]:
    """Lane id -> its center line ``[n, 2]`` and tags."""
    root = ElementTree.parse(path).getroot()
    nodes = {n.attrib['id']: [float(n.attrib[c]) for c in 'xy'] for n in root.iter('node')}
    ways = {}
    for way in root.iter('way'):
        tags = {tag.attrib['k']: tag.attrib['v'] for tag in way.iter('tag')}
        ways[int(way.attrib['lane_id'])] = dict(
            line=np.array([nodes[item.attrib['ref']] for item in way.iter('nd')]),
            turn_direction=tags['turn_direction'],
            is_intersection=tags['is_intersection'] == 'True',
            has_traffic_control=tags['has_traffic_control'] == 'True',
        )
        if not ways[int(way.attrib['lane_id'])]['line'].size:
            raise ValueError(f'lane {brief(way.attrib["lane_id"])} has no points')
    if not ways:
        raise ValueError('it has no lanes')
    return ways


class Argoverse1Reader(ArgoverseReader):
    """Reads sequences of one split; a map is read once, when it is needed.

    Args:
        data_dir (str | Path): Folder of the CSV files.
        map_dir (str | Path): ``map_files``.
        map_range (float): See :class:`ArgoverseReader`.
    """

    pattern, example = '*.csv', 'data/argoverse1/train/data'
    content = 'Argoverse 1 forecasting sequences'
    numbers = 'TIMESTAMP', 'X', 'Y'
    texts = 'TRACK_ID', 'OBJECT_TYPE', 'CITY_NAME'
    history_steps, future_steps = HISTORY_STEPS, FUTURE_STEPS

    def __init__(self, data_dir: str | Path, map_dir: str | Path, map_range: float = 142.0) -> None:
        super().__init__(data_dir, map_range)
        self.map_dir = Path(map_dir)
        self._maps: dict[str, Argoverse1Map] = {}

    def city_map(self, city: str) -> Argoverse1Map:
        if city not in self._maps:
            self._maps[city] = Argoverse1Map(self.map_dir, city)
        return self._maps[city]

    @one_message
    def read(self, path: str | Path) -> Scene:
        """Read a sequence.

        Raises:
            SceneError: The file is unreadable, lacks a column or the focal
                agent, has steps that are not those of the data set, names an
                unknown city, or :meth:`Scene.check` refuses it.
        """
        path = Path(path)
        try:
            table = pd.read_csv(path, dtype=dict.fromkeys(self.texts, str))
        except (OSError, ValueError) as e:
            raise SceneError(
                f"'{path}' cannot be read as CSV: {brief(e, 80)}. Fix: unpack it again.",
                'unreadable',
            ) from e
        table = self.checked(table, path)
        cities = table['CITY_NAME'].unique()
        if len(cities) != 1:
            raise SceneError(
                f"'{path}' names {len(cities)} cities, expected one. Fix: remove the file.",
                'bad table',
            )
        city_map = self.city_map(str(cities[0]))
        times, steps = np.unique(table['TIMESTAMP'], return_inverse=True)
        if len(times) not in (HISTORY_STEPS, HISTORY_STEPS + FUTURE_STEPS):
            raise SceneError(
                f"'{path}' has {len(times)} time stamps, expected "
                f'{HISTORY_STEPS + FUTURE_STEPS} (or {HISTORY_STEPS} in a test '
                'set). Fix: remove the file.',
                'bad table',
            )
        kinds = table['OBJECT_TYPE'].to_numpy()
        # The classes are AGENT, AV, OTHERS: the focal agents are vehicles.
        types = np.where(kinds == 'OTHERS', AGENT_TYPES.index('other'), 0)
        is_focal = kinds == 'AGENT', 'OBJECT_TYPE AGENT'
        name = dict(scene_id=path.stem, city=city_map.city)
        return self.scene(table, path, steps, *is_focal, types, city_map.near, **name)
