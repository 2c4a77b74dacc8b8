"""Simulated traffic in the file layout of Argoverse 1: CSV sequences and ``map_files``.

The demo runs the real reader on these files. ``tools/motion/simulate_argoverse2.py``
writes the layout of Argoverse 2.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from lm4ve.tasks.motion.datasets.argoverse1 import CITY_IDS, FUTURE_STEPS, HISTORY_STEPS, boxes_of
from lm4ve.tasks.motion.demo.traffic import CITY_SEEDS, Window, city_lanes, windows
from lm4ve.tasks.motion.demo.traffic_roads import Lane
from lm4ve.tasks.motion.scene import STEP

#: Scenes cut out of one simulation.
PER_SIMULATION = 160
_FIRST_TIME = 315968000.0


def simulate(split_seed: int, count: int, steps: int, history: int) -> list[Window]:
    """Simulate the scenes of a split, alternating between the cities."""
    found: list[Window] = []
    cities = sorted(CITY_SEEDS)
    parts = range(0, count, PER_SIMULATION)
    for n, done in enumerate(tqdm(parts, f'simulating {count:,} scenes, in parts', disable=None)):
        wanted = min(PER_SIMULATION, count - done)
        found += windows(cities[n % 2], 1000 * split_seed + n, wanted, steps, history)
    return found


def write_argoverse1(root: str | Path, splits: dict[str, int]) -> None:
    """Write ``<root>/<split>/data/<n>.csv`` and ``<root>/map_files``.

    Args:
        root (str | Path): The folder.
        splits (dict[str, int]): Split -> number of sequences. Of a split named
            'test' the futures are left out.
    """
    root = Path(root)
    for city in CITY_SEEDS:
        write_argoverse1_map(root / 'map_files', city, city_lanes(city))
    for n, (split, count) in enumerate(splits.items()):
        folder = root / split / 'data'
        folder.mkdir(parents=True, exist_ok=True)
        scenes = simulate(n, count, HISTORY_STEPS + FUTURE_STEPS, HISTORY_STEPS)
        for i, w in enumerate(scenes, start=1):
            table = argoverse1_table(w)
            if split == 'test':
                last = np.unique(table['TIMESTAMP'])[HISTORY_STEPS - 1]
                table = table[table['TIMESTAMP'] <= last]
            table.to_csv(folder / f'{i}.csv', index=False, float_format='%.6f')


def argoverse1_table(window: Window) -> pd.DataFrame:
    """Return the rows of a sequence, sorted by time."""
    agents, steps = np.nonzero(window.valid)
    order = np.argsort(steps, kind='stable')
    agents, steps = agents[order], steps[order]
    kinds = np.full(len(window.valid), 'OTHERS', dtype=object)
    kinds[window.sensor], kinds[window.focal] = 'AV', 'AGENT'
    return pd.DataFrame(
        dict(
            TIMESTAMP=_FIRST_TIME + steps * STEP,
            TRACK_ID=[f'00000000-0000-0000-0000-{a:012d}' for a in agents],
            OBJECT_TYPE=kinds[agents],
            X=window.positions[agents, steps, 0],
            Y=window.positions[agents, steps, 1],
            CITY_NAME=window.city,
        )
    )


def write_argoverse1_map(folder: Path, city: str, lanes: dict[int, Lane]) -> None:
    """Write a city's vector map and its table of boxes."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f'{city}_{CITY_IDS[city]}'
    first = 9_600_000  # lane ids are long numbers in the data set
    nodes, ways = [], []
    for i, lane in lanes.items():
        tags = [
            ('has_traffic_control', lane.control),
            ('turn_direction', lane.turn),
            ('is_intersection', lane.junction >= 0),
            ('l_neighbor_id', None),
            ('r_neighbor_id', None),
            *(('predecessor', first + j) for j in lane.predecessors),
            *(('successor', first + j) for j in lane.successors),
        ]
        ways.append(f'<way lane_id="{first + i}">')
        ways += [f'<tag k="{k}" v="{v}" />' for k, v in tags]
        for x, y in lane.line:
            ways.append(f'<nd ref="{len(nodes)}" />')
            nodes.append(f'<node id="{len(nodes)}" x="{x:.6f}" y="{y:.6f}" />')
        ways.append('</way>')
    text = ''.join(['<ArgoverseVectorMap>', *nodes, *ways, '</ArgoverseVectorMap>'])
    (folder / f'pruned_argoverse_{stem}_vector_map.xml').write_text(text)
    lines = np.array([lane.line for lane in lanes.values()])
    np.save(folder / f'{stem}_halluc_bbox_table.npy', boxes_of(lines))
    (folder / f'{stem}_tableidx_to_laneid_map.json').write_text(
        json.dumps({str(n): first + i for n, i in enumerate(lanes)})
    )
