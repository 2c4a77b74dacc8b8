"""Simulated traffic as a data set, in the file layout of Argoverse 1.

The embedded default of motion forecasting: one command trains, without a download,
and through the reader and the preprocessing of real data.
The tests have a writer of the layout of Argoverse 2.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock
from mmengine.dist import barrier, is_main_process
from tqdm import tqdm

from lm4ve.data.generated import write_once
from lm4ve.errors import check, require
from lm4ve.registry import DATASETS
from lm4ve.tasks.motion.datasets.argoverse import (
    CITY_IDS,
    TAGS,
    Argoverse1Reader,
    ArgoverseReader,
)
from lm4ve.tasks.motion.datasets.cache import MotionDataset, preprocess_split
from lm4ve.tasks.motion.demo.traffic import CITIES, Window, build_city, windows
from lm4ve.tasks.motion.structures import STEP

#: Scenes cut out of one simulation.
PER_SIMULATION = 160
#: Share of a split's simulations that are held out for tuning.
VAL_SHARE = 0.2


def simulate(split_seed: int, count: int, kind: type[ArgoverseReader]) -> list[Window]:
    """Simulate the scenes of a split with the steps of a reader, alternating between the cities."""
    steps = kind.history_steps + kind.future_steps, kind.history_steps
    found: list[Window] = []
    parts = range(0, count, PER_SIMULATION)
    for n, done in enumerate(
        tqdm(parts, f'simulating {count:,} scenes, in parts', disable=None)
    ):
        part = min(PER_SIMULATION, count - done)
        found += windows(sorted(CITIES)[n % 2], 1000 * split_seed + n, part, *steps)
    return found


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
    for n, (split, count) in enumerate(splits.items()):
        folder = root / split / 'data'
        folder.mkdir(parents=True, exist_ok=True)
        for i, w in enumerate(simulate(n, count, Argoverse1Reader), start=1):
            if split == 'test':
                w.valid[:, Argoverse1Reader.history_steps :] = False
            argoverse1_table(w).to_csv(
                folder / f'{i}.csv', index=False, float_format='%.6f'
            )


def argoverse1_table(window: Window) -> pd.DataFrame:
    """Return the rows of a sequence, sorted by time."""
    steps, agents = np.nonzero(window.valid.T)
    kinds = np.full(len(window.valid), 'OTHERS', dtype=object)
    kinds[window.sensor], kinds[window.focal] = 'AV', 'AGENT'
    return pd.DataFrame(
        dict(
            TIMESTAMP=315968000.0 + steps * STEP,
            TRACK_ID=[f'00000000-0000-0000-0000-{a:012d}' for a in agents],
            OBJECT_TYPE=kinds[agents],
            X=window.tracks[agents, steps, 0],
            Y=window.tracks[agents, steps, 1],
            CITY_NAME=window.city,
        )
    )


def write_argoverse1_map(folder: Path, city: str) -> None:
    """Write a city's vector map."""
    folder.mkdir(parents=True, exist_ok=True)
    nodes: list[str] = []
    ways: list[str] = []
    for i, lane in enumerate(build_city(city)):
        tags = zip(TAGS, (lane.turn, lane.junction, lane.control), strict=True)
        ways.append(
            f'<way lane_id="{9_600_000 + i}">'
        )  # long numbers, as in the data set
        ways += [f'<tag k="{k}" v="{v}" />' for k, v in tags]
        for x, y in lane.line:
            ways.append(f'<nd ref="{len(nodes)}" />')
            nodes.append(f'<node id="{len(nodes)}" x="{x:.6f}" y="{y:.6f}" />')
        ways.append('</way>')
    text = ''.join(['<ArgoverseVectorMap>', *nodes, *ways, '</ArgoverseVectorMap>'])
    (folder / f'pruned_argoverse_{city}_{CITY_IDS[city]}_vector_map.xml').write_text(
        text
    )


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

    def __init__(
        self,
        split: str,
        root: str = 'data/traffic-sim',
        counts: dict[str, int] | None = None,
        part: str | None = None,
        **kwargs,
    ) -> None:
        counts = dict(counts or dict(train=3000, val=500))
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
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(folder.with_name(f'{folder.name}.lock')):
                recipe = dict(layout='argoverse1', counts=counts)
                write_once(
                    folder,
                    recipe,
                    'scenes',
                    lambda root: write_argoverse1(root, counts),
                )
                reader = Argoverse1Reader(folder / split / 'data', folder / 'map_files')
                preprocess_split(reader, folder / f'{split}.cache')
        barrier()
        super().__init__(cache=str(folder / f'{split}.cache'), **kwargs)


def part_of(part: str, count: int) -> range:
    """Return the scenes of a part of a split.

    Args:
        part (str): 'fit' or 'val'.
        count (int): Scenes of the split.

    Raises:
        UserError: There is no such part, or there is only one simulation.
    """
    check('TrafficDataset.part', part, choices=('fit', 'val'))
    check('scenes to divide by TrafficDataset.part', count, above=PER_SIMULATION)
    parts = -(-count // PER_SIMULATION)
    cut = PER_SIMULATION * (parts - max(1, round(VAL_SHARE * parts)))
    return range(cut) if part == 'fit' else range(cut, count)
