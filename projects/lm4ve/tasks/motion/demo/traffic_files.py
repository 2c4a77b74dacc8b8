"""Simulated traffic in the exact file layouts of Argoverse 1 and 2.

The demo runs the real readers on them: CSV sequences with ``map_files``, and scenario
folders with parquet and JSON.
"""

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd

from lm4ve.tasks.base.progress import progress
from lm4ve.tasks.motion.datasets import argoverse1, argoverse2
from lm4ve.tasks.motion.demo.traffic import CITY_SEEDS, Window, city_lanes, windows
from lm4ve.tasks.motion.demo.traffic_roads import OFFSET, Lane, sideways
from lm4ve.tasks.motion.scene import STEP

#: Scenes cut out of one simulation.
PER_SIMULATION = 160
#: Names of the two cities in Argoverse 2.
CITY_NAMES = dict(PIT='pittsburgh', MIA='miami')
_FIRST_TIME = 315968000.0


def simulate(split_seed: int, count: int, steps: int, history: int) -> list[Window]:
    """Scenes of a split, alternating between the cities."""
    found: list[Window] = []
    cities = sorted(CITY_SEEDS)
    parts = range(0, count, PER_SIMULATION)
    for n, done in enumerate(progress(parts, f'simulating {count:,} scenes, in parts')):
        wanted = min(PER_SIMULATION, count - done)
        found += windows(cities[n % 2], 1000 * split_seed + n, wanted, steps, history)
    return found


# ---------------------------------------------------------------- Argoverse 1
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
        steps = argoverse1.HISTORY_STEPS + argoverse1.FUTURE_STEPS
        scenes = simulate(n, count, steps, argoverse1.HISTORY_STEPS)
        for i, w in enumerate(scenes, start=1):
            table = argoverse1_table(w)
            if split == 'test':
                last = np.unique(table['TIMESTAMP'])[argoverse1.HISTORY_STEPS - 1]
                table = table[table['TIMESTAMP'] <= last]
            table.to_csv(folder / f'{i}.csv', index=False, float_format='%.6f')


def argoverse1_table(window: Window) -> pd.DataFrame:
    """The rows of a sequence, sorted by time."""
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
    stem = f'{city}_{argoverse1.CITY_IDS[city]}'
    root = ElementTree.Element('ArgoverseVectorMap')
    first, node = 9_600_000, 0  # lane ids are long numbers in the data set
    ways = []
    for i, lane in lanes.items():
        way = ElementTree.Element('way', lane_id=str(first + i))
        tags = [
            ('has_traffic_control', str(lane.control)),
            ('turn_direction', lane.turn),
            ('is_intersection', str(lane.junction >= 0)),
            ('l_neighbor_id', 'None'),
            ('r_neighbor_id', 'None'),
        ]
        tags += [('predecessor', str(first + j)) for j in lane.predecessors]
        tags += [('successor', str(first + j)) for j in lane.successors]
        for k, v in tags:
            ElementTree.SubElement(way, 'tag', k=k, v=v)
        for x, y in lane.line:
            ElementTree.SubElement(root, 'node', id=str(node), x=f'{x:.6f}', y=f'{y:.6f}')
            ElementTree.SubElement(way, 'nd', ref=str(node))
            node += 1
        ways.append(way)
    root.extend(ways)
    ElementTree.ElementTree(root).write(folder / f'pruned_argoverse_{stem}_vector_map.xml')
    lines = np.array([lane.line for lane in lanes.values()])
    np.save(folder / f'{stem}_halluc_bbox_table.npy', argoverse1.boxes_of(lines))
    (folder / f'{stem}_tableidx_to_laneid_map.json').write_text(
        json.dumps({str(n): first + i for n, i in enumerate(lanes)})
    )


# ---------------------------------------------------------------- Argoverse 2
def write_argoverse2(root: str | Path, splits: dict[str, int]) -> None:
    """Write ``<root>/<split>/<id>/scenario_<id>.parquet`` and its map.

    Args:
        root, splits: See :func:`write_argoverse1`.
    """
    for n, (split, count) in enumerate(splits.items()):
        steps = argoverse2.HISTORY_STEPS + argoverse2.FUTURE_STEPS
        scenes = simulate(n, count, steps, argoverse2.HISTORY_STEPS)
        for i, w in enumerate(scenes):
            name = f'{n:08d}-0000-4000-8000-{i:012d}'
            folder = Path(root) / split / name
            folder.mkdir(parents=True, exist_ok=True)
            table = argoverse2_table(w, name)
            if split == 'test':
                table = table[table['observed']]
            table.to_parquet(folder / f'scenario_{name}.parquet', index=False)
            (folder / f'log_map_archive_{name}.json').write_text(json.dumps(argoverse2_map(w)))


def argoverse2_table(window: Window, name: str) -> pd.DataFrame:
    """The rows of a scenario, in av2-api's columns."""
    agents, steps = np.nonzero(window.valid)
    h = argoverse2.HISTORY_STEPS
    # Tracks of 1 are whole and unscored, fragments are 0, the focal one is 3.
    category = np.where(window.valid.all(axis=1), 1, 0)
    category[window.focal] = 3
    heading = window.headings[agents, steps]
    speed = window.speeds[agents, steps]
    ids = [str(1000 + a) if a != window.sensor else 'AV' for a in agents]
    return pd.DataFrame(
        dict(
            observed=steps < h,
            track_id=ids,
            object_type='vehicle',
            object_category=category[agents],
            timestep=steps,
            position_x=window.positions[agents, steps, 0],
            position_y=window.positions[agents, steps, 1],
            heading=heading,
            velocity_x=speed * np.cos(heading),
            velocity_y=speed * np.sin(heading),
            scenario_id=name,
            start_timestamp=315968000 * 10**9,
            end_timestamp=315968000 * 10**9 + int((window.valid.shape[1] - 1) * STEP * 1e9),
            num_timestamps=window.valid.shape[1],
            focal_track_id=str(1000 + window.focal),
            city=CITY_NAMES[window.city],
        )
    )


def argoverse2_map(window: Window) -> dict:
    """The map around a scene: lanes within 150 m, by their two boundaries."""
    at = window.positions[window.focal, argoverse2.HISTORY_STEPS - 1]
    segments = {}
    for i, lane in city_lanes(window.city).items():
        if np.abs(lane.line - at).max(axis=-1).min() > 150:
            continue
        right = sideways(lane.line) * OFFSET
        segments[str(i)] = dict(
            id=i,
            is_intersection=lane.junction >= 0,
            lane_type='VEHICLE',
            left_lane_boundary=_points(lane.line - right),
            right_lane_boundary=_points(lane.line + right),
            left_lane_mark_type='DASHED_YELLOW',
            right_lane_mark_type='SOLID_WHITE',
            left_neighbor_id=None,
            right_neighbor_id=None,
            predecessors=lane.predecessors,
            successors=lane.successors,
        )
    return dict(lane_segments=segments, pedestrian_crossings={}, drivable_areas={})


def _points(line: np.ndarray) -> list:
    return [dict(x=round(float(x), 4), y=round(float(y), 4), z=0.0) for x, y in line]
