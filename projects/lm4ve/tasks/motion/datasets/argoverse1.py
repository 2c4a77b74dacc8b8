"""Argoverse 1: CSV sequences and the vector maps of two cities.

Formats: github.com/argoai/argoverse-api (``map_api.py``,
``vector_map_loader.py``); the paper is arXiv 1911.02620.
"""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd

from lm4ve.errors import UserError, brief
from lm4ve.tasks.motion.datasets.argoverse import ArgoverseReader, LaneMap
from lm4ve.tasks.motion.scene import AGENT_TYPES, LANE_POINTS, TURNS, SceneError, resample

#: Cities of the data set and the number in their map files' names.
CITY_IDS = {'PIT': 10314, 'MIA': 10316}

# A sequence: <split>/data/<number>.csv, 10 Hz, 20 steps of history and 30 of future (none in
# the test set); the focal agent is the one whose OBJECT_TYPE is AGENT.
#
#     TIMESTAMP,TRACK_ID,OBJECT_TYPE,X,Y,CITY_NAME
#     315968000.0,00000000-0000-0000-0000-000000000001,OTHERS,1523.4,310.8,PIT
_COLUMNS = dict(TIMESTAMP=float, TRACK_ID=str, OBJECT_TYPE=str, X=float, Y=float, CITY_NAME=str)


def read_city_map(folder: str | Path, city: str) -> LaneMap:
    """Read the lanes of one city.

    Args:
        folder (str | Path): ``map_files``.
        city (str): 'PIT' or 'MIA'.
    """
    # <node id="0" x="1523.4" y="310.8"/>
    # <way lane_id="9600000"><tag k="turn_direction" v="LEFT"/> ... <nd ref="0"/> ... </way>
    path = Path(folder) / f'pruned_argoverse_{city}_{CITY_IDS[city]}_vector_map.xml'
    root = ElementTree.parse(path).getroot()
    nodes = {n.attrib['id']: [float(n.attrib[c]) for c in 'xy'] for n in root.iter('node')}
    ways = sorted(root.iter('way'), key=lambda way: int(way.attrib['lane_id']))
    lines = [np.array([nodes[n.attrib['ref']] for n in way.iter('nd')]) for way in ways]
    tags = [{t.attrib['k']: t.attrib['v'] for t in way.iter('tag')} for way in ways]
    return dict(
        lanes=np.stack([_ten_points(line) for line in lines]),
        lane_turns=np.array([TURNS.index(t['turn_direction']) for t in tags], dtype=np.int8),
        lane_intersections=np.array([t['is_intersection'] == 'True' for t in tags]),
        lane_controls=np.array([t['has_traffic_control'] == 'True' for t in tags]),
    )


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
                advice = 'Fix: unpack hd_maps.tar.gz and give its folder map_files.'
                problem = f"The map of {city} in '{self.map_dir}' cannot be read"
                raise UserError(f'{problem} ({brief(e, 200)}). {advice}') from e
        return self._maps[city]

    def _parse(self, path: Path) -> tuple[pd.DataFrame, LaneMap, dict]:
        table = pd.read_csv(path, usecols=list(_COLUMNS), dtype=_COLUMNS)
        (city,) = table['CITY_NAME'].unique()
        times, steps = np.unique(table['TIMESTAMP'], return_inverse=True)
        if len(times) not in (self.history_steps, self.history_steps + self.future_steps):
            raise SceneError('other time steps')
        # The classes are AGENT, AV, OTHERS: the focal agents are vehicles.
        others = table['OBJECT_TYPE'] == 'OTHERS'
        table = table.rename(columns=dict(TRACK_ID='track', X='x', Y='y')).assign(
            step=steps,
            is_focal=table['OBJECT_TYPE'] == 'AGENT',
            agent_type=np.where(others, AGENT_TYPES.index('other'), 0),
        )
        return table, self.city_map(city), dict(scene_id=path.stem, city=city)
