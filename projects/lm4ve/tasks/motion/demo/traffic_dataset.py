"""The simulator as a data set, which writes missing files and caches.

The embedded default of motion forecasting: one command trains, without a download,
and through the reader and the preprocessing of real data.
"""

import json
import shutil
from pathlib import Path

from filelock import FileLock
from mmengine.dist import barrier, is_main_process
from mmengine.logging import print_log

from lm4ve.errors import UserError, check
from lm4ve.registry import DATASETS
from lm4ve.tasks.motion.datasets.argoverse1 import Argoverse1Reader
from lm4ve.tasks.motion.datasets.motion_dataset import MotionDataset
from lm4ve.tasks.motion.datasets.preprocessing import preprocess_split
from lm4ve.tasks.motion.demo.traffic_files import PER_SIMULATION, write_argoverse1

#: Share of a split's simulations that are held out for tuning.
VAL_SHARE = 0.2


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
        UserError: A field is wrong, or ``root`` holds other counts.
        OSError: ``root`` holds other files.
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
            check('TrafficDataset.indices with part', kwargs.get('indices'), choices=(None,))
            kwargs['indices'] = part_of(part, counts[split])
        root = Path(root)
        # Only one process writes; the others wait for it, those of this training
        # at the barrier and those of another one at the lock.
        if is_main_process():
            root.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(root.with_name(f'{root.name}.lock')):
                write_traffic(root, counts)
                reader = Argoverse1Reader(root / split / 'data', root / 'map_files')
                preprocess_split(reader, root / f'{split}.cache', quiet=True)
        barrier()
        super().__init__(cache=str(root / f'{split}.cache'), **kwargs)


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
    simulations = -(-count // PER_SIMULATION)
    cut = PER_SIMULATION * (simulations - max(1, round(VAL_SHARE * simulations)))
    return range(cut) if part == 'fit' else range(cut, count)


def write_traffic(root: Path, counts: dict[str, int]) -> None:
    """Simulate and write the files, unless they are there.

    Raises:
        UserError: Scenes of other counts are there.
        OSError: Files of somebody else are there.
    """
    note = root / 'traffic.json'
    if note.is_file():
        found = json.loads(note.read_text())['counts']
        if found != counts:
            raise UserError(
                f"'{root}' holds {found}, not dataset.counts={counts}. Fix: another dataset.root."
            )
        return
    if root.exists():
        root.rmdir()  # which refuses a folder that is not empty
    print_log(f'TrafficDataset: simulating {sum(counts.values())} scenes', logger='current')
    beside = root.with_name(f'{root.name}.unfinished')
    shutil.rmtree(beside, ignore_errors=True)
    write_argoverse1(beside, counts)
    (beside / 'traffic.json').write_text(json.dumps(dict(layout='argoverse1', counts=counts)))
    beside.rename(root)
