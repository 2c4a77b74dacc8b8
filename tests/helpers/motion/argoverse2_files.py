"""Simulate traffic in the file layout of Argoverse 2, for tests of the reader."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from lm4ve.tasks.motion.datasets.argoverse import Argoverse2Reader
from lm4ve.tasks.motion.demo.traffic import OFFSET, Window, build_city, sideways
from lm4ve.tasks.motion.demo.traffic_files import simulate
from lm4ve.tasks.motion.structures import STEP

#: Names of the two cities in Argoverse 2.
CITY_NAMES = dict(PIT='pittsburgh', MIA='miami')


def write_argoverse2(root: str | Path, splits: dict[str, int]) -> None:
    """Write ``<root>/<split>/<id>/scenario_<id>.parquet`` and its map.

    Args:
        root (str | Path): The folder.
        splits (dict[str, int]): Split -> number of scenarios. Of a split named
            'test' the futures are left out.
    """
    for n, (split, count) in enumerate(splits.items()):
        scenes = simulate(n, count, Argoverse2Reader)
        for i, w in enumerate(scenes):
            name = f'{n:08d}-0000-4000-8000-{i:012d}'
            folder = Path(root) / split / name
            folder.mkdir(parents=True, exist_ok=True)
            table = argoverse2_table(w, name)
            if split == 'test':
                table = table[table['observed']]
            table.to_parquet(folder / f'scenario_{name}.parquet', index=False)
            (folder / f'log_map_archive_{name}.json').write_text(
                json.dumps(argoverse2_map(w))
            )


def argoverse2_table(window: Window, name: str) -> pd.DataFrame:
    """Return the rows of a scenario, in av2-api's columns."""
    agents, steps = np.nonzero(window.valid)
    h, count, start = (
        Argoverse2Reader.history_steps,
        window.valid.shape[1],
        315968000 * 10**9,
    )
    x, y, heading, speed = window.tracks[agents, steps].T
    ids = ['AV' if a == window.sensor else str(1000 + a) for a in agents]
    return pd.DataFrame(
        dict(
            observed=steps < h,
            track_id=ids,
            # The focal track is 3, unscored ones are 1.
            object_category=np.where(agents == window.focal, 3, 1),
            **dict(object_type='vehicle', timestep=steps),
            **dict(
                position_x=x,
                position_y=y,
                heading=heading,
                city=CITY_NAMES[window.city],
            ),
            **dict(
                velocity_x=speed * np.cos(heading), velocity_y=speed * np.sin(heading)
            ),
            **dict(
                scenario_id=name,
                focal_track_id=str(1000 + window.focal),
                num_timestamps=count,
            ),
            start_timestamp=start,
            end_timestamp=start + int((count - 1) * STEP * 1e9),
        )
    )


def argoverse2_map(window: Window) -> dict:
    """Return the map around a scene: lanes within 150 m, by their two boundaries."""
    at = window.tracks[window.focal, Argoverse2Reader.history_steps - 1, :2]
    segments = {}
    for i, lane in enumerate(build_city(window.city)):
        if np.abs(lane.line - at).max(axis=-1).min() > 150:
            continue
        right = sideways(lane.line) * OFFSET
        left, right = (
            [dict(x=x, y=y, z=0.0) for x, y in line.round(4).tolist()]
            for line in (lane.line - right, lane.line + right)
        )
        lines = dict(left_lane_boundary=left, right_lane_boundary=right)
        segments[str(i)] = dict(
            id=i, is_intersection=lane.junction, lane_type='VEHICLE', **lines
        )
    return dict(lane_segments=segments, pedestrian_crossings={}, drivable_areas={})
