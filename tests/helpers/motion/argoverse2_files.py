"""Simulate traffic in the file layout of Argoverse 2, for tests of the reader."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from lm4ve.demo_data.traffic import (
    OFFSET,
    STEP,
    Window,
    build_city,
    sideways,
    simulate,
)
from lm4ve.tasks.motion.datasets.argoverse import Argoverse2Reader

#: Names of the two cities in Argoverse 2.
CITY_NAMES = dict(PIT='pittsburgh', MIA='miami')


def write_argoverse2(root: str | Path, splits: dict[str, int]) -> None:
    """Write ``<root>/<split>/<id>/scenario_<id>.parquet`` and its map.

    Args:
        root (str | Path): The folder.
        splits (dict[str, int]): Split -> number of scenarios. Of a split named
            'test' the futures are left out.
    """
    for split_number, (split, count) in enumerate(splits.items()):
        scenes = simulate(
            split_number,
            count,
            Argoverse2Reader.history_steps,
            Argoverse2Reader.future_steps,
        )
        for i, window in enumerate(scenes):
            name = f'{split_number:08d}-0000-4000-8000-{i:012d}'
            folder = Path(root) / split / name
            folder.mkdir(parents=True, exist_ok=True)
            table = argoverse2_table(window, name)
            if split == 'test':
                table = table[table['observed']]
            table.to_parquet(folder / f'scenario_{name}.parquet', index=False)
            (folder / f'log_map_archive_{name}.json').write_text(
                json.dumps(argoverse2_map(window))
            )


def argoverse2_table(window: Window, name: str) -> pd.DataFrame:
    """Return the rows of a scenario, in av2-api's columns."""
    agents, steps = np.nonzero(window.valid)
    num_steps = window.valid.shape[1]
    start = 315968000 * 10**9  # nanoseconds
    x, y, heading, speed = window.tracks[agents, steps].T
    ids = ['AV' if a == window.sensor else str(1000 + a) for a in agents]
    return pd.DataFrame(
        dict(
            observed=steps < Argoverse2Reader.history_steps,
            track_id=ids,
            # The focal track is 3, unscored ones are 1.
            object_category=np.where(agents == window.focal, 3, 1),
            object_type='vehicle',
            timestep=steps,
            position_x=x,
            position_y=y,
            heading=heading,
            city=CITY_NAMES[window.city],
            velocity_x=speed * np.cos(heading),
            velocity_y=speed * np.sin(heading),
            scenario_id=name,
            focal_track_id=str(1000 + window.focal),
            num_timestamps=num_steps,
            start_timestamp=start,
            end_timestamp=start + int((num_steps - 1) * STEP * 1e9),
        )
    )


def argoverse2_map(window: Window) -> dict:
    """Return the map around a scene: the lanes near the focal agent, by their boundaries.

    A lane is near if one of its points lies in the square of +-150 m around the agent's
    last observed position. It keeps its number in the city.
    """
    last_observed = Argoverse2Reader.history_steps - 1
    agent = window.tracks[window.focal, last_observed, :2]
    segments = {}
    for number, lane in enumerate(build_city(window.city)):
        distances = np.abs(lane.line - agent).max(axis=-1)
        if distances.min() > 150:
            continue
        to_the_right = sideways(lane.line) * OFFSET
        segments[str(number)] = dict(
            id=number,
            is_intersection=lane.junction,
            lane_type='VEHICLE',
            left_lane_boundary=boundary(lane.line - to_the_right),
            right_lane_boundary=boundary(lane.line + to_the_right),
        )
    return dict(lane_segments=segments, pedestrian_crossings={}, drivable_areas={})


def boundary(line: np.ndarray) -> list[dict[str, float]]:
    """Return a line ``[n, 2]`` as av2's maps write it, in tenths of a millimeter."""
    return [dict(x=x, y=y, z=0.0) for x, y in line.round(4).tolist()]
