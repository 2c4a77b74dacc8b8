"""Simulated traffic as a data set, in the file layout of Argoverse 1.

The embedded default of motion forecasting: one command trains, without a download,
and through the reader and the preprocessing of real data.
The tests have a writer of the layout of Argoverse 2.
"""

import math
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from mmengine.dist import barrier, is_main_process

from lm4ve.data.generated import write_once
from lm4ve.demo_data import traffic
from lm4ve.demo_data.traffic import CITIES, Window, build_city, simulate
from lm4ve.errors import check, require
from lm4ve.files import sole_use, write_csv
from lm4ve.registry import DATASETS
from lm4ve.tasks.motion.datasets.argoverse import (
    TAGS,
    Argoverse1Reader,
    city_map_file,
)
from lm4ve.tasks.motion.datasets.cache import MotionDataset, preprocess_split

#: Share of a split's simulations that are held out for tuning.
VAL_SHARE = 0.2


def write_argoverse1(root: str | Path, splits: dict[str, int]) -> None:
    """Write ``<root>/<split>/data/<n>.csv`` and ``<root>/map_files``.

    Args:
        root (str | Path): The folder.
        splits (dict[str, int]): Split -> number of sequences. Of a split named
            'test' the futures are left out.
    """
    root = Path(root)
    for city in CITIES:
        write_argoverse1_map(root / 'map_files', city)
    for split_seed, (split, count) in enumerate(splits.items()):
        folder = root / split / 'data'
        folder.mkdir(parents=True, exist_ok=True)
        found = simulate(
            split_seed,
            count,
            Argoverse1Reader.history_steps,
            Argoverse1Reader.future_steps,
        )
        for number, window in enumerate(found, start=1):
            if split == 'test':
                window.valid[:, Argoverse1Reader.history_steps :] = False
            table = argoverse1_table(window)
            path = folder / f'{number}.csv'
            rows = table.itertuples(index=False, name=None)
            write_csv(table.columns, rows, path, digits=6)


def argoverse1_table(window: Window) -> pd.DataFrame:
    """Return the rows of a sequence, sorted by time."""
    steps, agents = np.nonzero(window.valid.T)
    kinds = np.full(len(window.valid), 'OTHERS', dtype=object)
    kinds[window.sensor] = 'AV'
    kinds[window.focal] = 'AGENT'
    columns = dict(
        TIMESTAMP=315968000.0 + steps * traffic.STEP,
        TRACK_ID=[f'00000000-0000-0000-0000-{agent:012d}' for agent in agents],
        OBJECT_TYPE=kinds[agents],
        X=window.tracks[agents, steps, 0],
        Y=window.tracks[agents, steps, 1],
        CITY_NAME=window.city,
    )
    return pd.DataFrame(columns)


def write_argoverse1_map(folder: Path, city: str) -> None:
    """Write a city's lanes as a vector map of Argoverse 1, an XML file in a folder.

    It has what :func:`lm4ve.tasks.motion.datasets.argoverse.read_city_map` reads: the
    nodes of all lanes, then each lane with three tags. Which lane follows which is left
    out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    nodes: list[str] = []
    ways: list[str] = []
    for i, lane in enumerate(build_city(city)):
        lane_id = 9_600_000 + i  # long numbers, as in the data set
        ways.append(f'<way lane_id="{lane_id}">')
        # 'NONE', 'LEFT' or 'RIGHT', then twice 'True' or 'False'.
        values = (lane.turn, lane.junction, lane.control)
        for tag, value in zip(TAGS, values, strict=True):
            ways.append(f'<tag k="{tag}" v="{value}" />')
        for x, y in lane.line:
            node_id = len(nodes)
            ways.append(f'<nd ref="{node_id}" />')
            nodes.append(f'<node id="{node_id}" x="{x:.6f}" y="{y:.6f}" />')
        ways.append('</way>')
    parts = ['<ArgoverseVectorMap>', *nodes, *ways, '</ArgoverseVectorMap>']
    city_map_file(folder, city).write_text(''.join(parts))


@DATASETS.register_module()
class TrafficDataset(MotionDataset):
    """Simulated traffic.

    Args:
        split (str): A key of ``counts``.
        root (str): Folder for files and caches. What is there is used.
        counts (dict[str, int]): Scenes of each split. The splits' simulations
            differ, their two cities are the same, as in Argoverse.
        part (str, optional): For choosing hyper-parameters without the held-out
            split: 'fit' is the first four fifths of the split, 'val' the rest.
            Cut between simulations, since scenes of one overlap in time.
        **kwargs: Passed to :class:`lm4ve.tasks.motion.MotionDataset`.

    Raises:
        UserError: A field is wrong, or ``root`` holds something else.
    """

    makes_files = True

    def __init__(
        self,
        split: str,
        root: str = 'data/traffic-sim',
        counts: dict[str, int] | None = None,
        part: str | None = None,
        **kwargs,
    ) -> None:
        if not counts:
            counts = dict(train=3000, val=500)
        counts = dict(counts)
        check('TrafficDataset.split', split, choices=counts)
        if part is not None:
            # Both part and indices would choose scenes.
            require(
                kwargs.get('indices') is None,
                f"TrafficDataset.indices does not go with part='{part}', which chooses the scenes. "
                'Fix: leave one of them out.',
            )
            kwargs['indices'] = part_of(part, counts[split])
        folder = Path(root)
        # Only one process writes; the others wait for it, those of this training
        # at the barrier and those of another one at the lock.
        if is_main_process():
            prepare_traffic(folder, split, counts)
        barrier()
        super().__init__(cache=str(_cache_of(folder, split)), **kwargs)


def prepare_traffic(folder: Path, split: str, counts: dict[str, int]) -> None:
    """Write the files of all splits and the cache of one, each unless it is there already.

    Args:
        folder (Path): Gets the files of Argoverse 1's layout, and the caches.
        split (str): The split whose cache is written.
        counts (dict[str, int]): Split -> number of scenes.

    Raises:
        UserError: The folder holds something else, or scenes of other counts.
    """
    with sole_use(folder.with_name(f'{folder.name}.lock'), wait=math.inf):
        recipe = dict(layout='argoverse1', counts=counts)
        write = partial(write_argoverse1, splits=counts)
        write_once(folder, recipe, noun='scenes', write=write)
        reader = Argoverse1Reader(folder / split / 'data', folder / 'map_files')
        preprocess_split(reader, _cache_of(folder, split))


def _cache_of(folder: Path, split: str) -> Path:
    """Return the path of a split's cache."""
    return folder / f'{split}.cache'


def part_of(part: str, count: int) -> range:
    """Return the scenes of a part of a split, cut between two simulations.

    Args:
        part (str): 'fit' or 'val'.
        count (int): Scenes of the split.

    Raises:
        UserError: There is no such part, or there is only one simulation.
    """
    check('TrafficDataset.part', part, choices=('fit', 'val'))
    check(
        'scenes to divide by TrafficDataset.part', count, above=traffic.PER_SIMULATION
    )
    simulations = math.ceil(count / traffic.PER_SIMULATION)
    held_out = max(1, round(VAL_SHARE * simulations))
    cut = traffic.PER_SIMULATION * (simulations - held_out)
    if part == 'fit':
        return range(cut)
    return range(cut, count)
