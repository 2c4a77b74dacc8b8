"""Argoverse 1: CSV sequences and the vector maps of two cities.

Formats: github.com/argoai/argoverse-api (``map_api.py``,
``vector_map_loader.py``); the paper is arXiv 1911.02620.
"""

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd

from lm4ve.errors import UserError, brief
from lm4ve.tasks.motion.datasets.argoverse import ArgoverseReader, LaneMap
from lm4ve.tasks.motion.scene import AGENT_TYPES, LANE_POINTS, TURNS, Scene, SceneError, resample

HISTORY_STEPS, FUTURE_STEPS = 20, 30
#: Cities of the data set and the number in their map files' names.
CITY_IDS = {'PIT': 10314, 'MIA': 10316}
#: Half the width of a lane, meters (``centerline_utils.py``).
HALF_WIDTH = 1.9

# A sequence: <split>/data/<number>.csv, 10 Hz, 20 steps of history and 30 of future (none in
# the test set); the focal agent is the one whose OBJECT_TYPE is AGENT.
#
#     TIMESTAMP,TRACK_ID,OBJECT_TYPE,X,Y,CITY_NAME
#     315968000.0,00000000-0000-0000-0000-000000000001,OTHERS,1523.4,310.8,PIT
_COLUMNS = dict(TIMESTAMP=float, TRACK_ID=str, OBJECT_TYPE=str, X=float, Y=float, CITY_NAME=str)


def read_city_map(folder: str | Path, city: str) -> LaneMap:
    """Read the lanes of one city.

    Boxes come from the city's table if that is there, else from the center lines.

    Args:
        folder (str | Path): ``map_files``.
        city (str): 'PIT' or 'MIA'.
    """
    folder, stem = Path(folder), f'{city}_{CITY_IDS[city]}'
    ways = _read_ways(folder / f'pruned_argoverse_{stem}_vector_map.xml')
    lanes = sorted(ways)
    lines = np.array([_ten_points(ways[i][0]) for i in lanes])
    tags = [ways[i][1] for i in lanes]
    boxes = boxes_of(lines)
    # xmin, ymin, xmax, ymax a row, and {"<row>": <lane id>, ...}.
    table = folder / f'{stem}_halluc_bbox_table.npy'
    names = folder / f'{stem}_tableidx_to_laneid_map.json'
    if table.is_file() and names.is_file():
        rows = np.load(table, allow_pickle=False)
        row_of = {int(lane): int(row) for row, lane in json.loads(names.read_text()).items()}
        listed = [n for n, i in enumerate(lanes) if i in row_of]
        boxes[listed] = rows[[row_of[lanes[n]] for n in listed]]
    return LaneMap(
        lines=lines,
        turns=np.array([TURNS.index(t['turn_direction']) for t in tags], dtype=np.int8),
        intersections=np.array([t['is_intersection'] == 'True' for t in tags]),
        controls=np.array([t['has_traffic_control'] == 'True' for t in tags]),
        boxes=boxes,
    )


def boxes_of(lines: np.ndarray) -> np.ndarray:
    """Return boxes ``[L, 4]`` around center lines ``[L, 10, 2]`` widened to a lane's width."""
    low, high = lines.min(axis=1), lines.max(axis=1)
    return np.concatenate([low - HALF_WIDTH, high + HALF_WIDTH], axis=1)


def _ten_points(line: np.ndarray) -> np.ndarray:
    """Return ten points; fewer are padded by the last, as in mmTransformer's map."""
    if len(line) > LANE_POINTS:
        return resample(line)
    return np.concatenate([line, np.repeat(line[-1:], LANE_POINTS - len(line), axis=0)])


def _read_ways(path: Path) -> dict[int, tuple[np.ndarray, dict[str, str]]]:
    """Map lane ids to the center line ``[n, 2]`` and tags."""
    # <node id="0" x="1523.4" y="310.8"/>
    # <way lane_id="9600000"><tag k="turn_direction" v="LEFT"/> ... <nd ref="0"/> ... </way>
    root = ElementTree.parse(path).getroot()
    nodes = {n.attrib['id']: [float(n.attrib[c]) for c in 'xy'] for n in root.iter('node')}
    return {
        int(way.attrib['lane_id']): (
            np.array([nodes[item.attrib['ref']] for item in way.iter('nd')]),
            {tag.attrib['k']: tag.attrib['v'] for tag in way.iter('tag')},
        )
        for way in root.iter('way')
    }


class Argoverse1Reader(ArgoverseReader):
    """Read sequences of one split; a map is read once, when it is needed.

    Args:
        data_dir (str | Path): Folder of the CSV files.
        map_dir (str | Path): ``map_files``.
        map_range (float): See :class:`ArgoverseReader`.
    """

    pattern = '*.csv'
    history_steps, future_steps = HISTORY_STEPS, FUTURE_STEPS

    def __init__(self, data_dir: str | Path, map_dir: str | Path, map_range: float = 142.0) -> None:
        super().__init__(data_dir, map_range)
        self.map_dir = Path(map_dir)
        self._maps: dict[str, LaneMap] = {}

    def city_map(self, city: str) -> LaneMap:
        """Return the map of a city.

        Raises:
            SceneError: The data set has no such city.
            UserError: The map is missing or damaged.
        """
        if city not in CITY_IDS:
            raise SceneError('unknown city')
        if city not in self._maps:
            try:
                self._maps[city] = read_city_map(self.map_dir, city)
            except Exception as e:  # whatever a damaged file raises
                raise UserError(
                    f"The map of {city} in '{self.map_dir}' cannot be read ({brief(e, 200)}). "
                    'Fix: unpack hd_maps.tar.gz and give its folder map_files.'
                ) from e
        return self._maps[city]

    def _table(self, path: Path) -> pd.DataFrame:
        return pd.read_csv(path, usecols=list(_COLUMNS), dtype=_COLUMNS)

    def _scene(self, table: pd.DataFrame, path: Path) -> Scene:
        (city,) = table['CITY_NAME'].unique()
        times, steps = np.unique(table['TIMESTAMP'], return_inverse=True)
        if len(times) not in (HISTORY_STEPS, HISTORY_STEPS + FUTURE_STEPS):
            raise SceneError('other time steps')
        kinds = table['OBJECT_TYPE'].to_numpy()
        return self._build(
            table['TRACK_ID'],
            steps,
            table[['X', 'Y']].to_numpy(),
            kinds == 'AGENT',
            # The classes are AGENT, AV, OTHERS: the focal agents are vehicles.
            np.where(kinds == 'OTHERS', AGENT_TYPES.index('other'), 0),
            self.city_map(city),
            scene_id=path.stem,
            city=city,
        )
