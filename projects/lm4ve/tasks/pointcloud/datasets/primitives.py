"""Ten classes of shapes that lm4ve makes itself, as a data set without a download."""

from pathlib import Path

import numpy as np

from lm4ve.data.held_out import SHARE, draw_held_out
from lm4ve.demo_data.primitives import CLASSES, VERSION, make_primitives
from lm4ve.errors import check
from lm4ve.files import cache_folder
from lm4ve.registry import DATASETS
from lm4ve.tasks.pointcloud.datasets.point_clouds import PointCloudDataset
from lm4ve.tasks.pointcloud.datasets.readers import cached_array

_SEEDS = dict(train=0, test=1)


@DATASETS.register_module()
class PrimitivesDataset(PointCloudDataset):
    """The set of shapes as a data set; made on first use and kept.

    Args:
        split (str): 'train' or 'test', which have different seeds. For choosing
            hyper-parameters without the test split, 'train' itself is cut in
            two: 'fit' and 'val' (a fifth of each class).
        split_seed (int, optional): Draws this cut. By default the last objects of each
            class are 'val'.
        per_class (int, optional): Objects of each class, before that cut;
            default: 300 to train with, 100 to test with.
        num_points (int): Points of each cloud.
        cache_dir (str, optional): Default: :func:`lm4ve.files.cache_folder`.
        **kwargs: Passed to :class:`lm4ve.tasks.pointcloud.PointCloudDataset`.
    """

    METAINFO = dict(classes=CLASSES)

    def __init__(
        self,
        split: str = 'train',
        split_seed: int | None = None,
        per_class: int | None = None,
        num_points: int = 512,
        cache_dir: str | None = None,
        **kwargs,
    ) -> None:
        check('dataset.split', split, choices=('train', 'fit', 'val', 'test'))
        self.split = split
        self.split_seed = split_seed
        self.num_points = num_points
        if per_class:
            self.per_class = per_class
        else:
            self.per_class = 100 if split == 'test' else 300
        self.cache_dir = Path(cache_dir) if cache_dir else cache_folder()
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict]:
        """Make the clouds or read the cache of them; return row and label of the split's."""
        # 'fit' and 'val' are parts of 'train'.
        made_as = 'test' if self.split == 'test' else 'train'
        seed = _SEEDS[made_as]
        name = f'primitives_{made_as}'
        key = f'version {VERSION}, {made_as}, {self.per_class}, {self.num_points}, 0'
        clouds = cached_array(
            self.cache_dir,
            name,
            key,
            build=lambda: make_primitives(self.per_class, self.num_points, seed),
        )
        labels = np.arange(len(clouds)) // self.per_class
        data_list = []
        for row in self._choose(labels).tolist():
            data_list.append(dict(path=name, row=row, gt_label=int(labels[row])))
        self.hold(clouds, data_list)
        return data_list

    def _choose(self, labels: np.ndarray) -> np.ndarray:
        """Return the rows of the array that belong to the split.

        Args:
            labels (np.ndarray): The class of each row, int ``[M]``.
        """
        if self.split not in ('fit', 'val'):
            return np.arange(len(labels))
        # Objects of a class are independent draws: any of them may be held out.
        if self.split_seed is None:
            num_fitted = round((1 - SHARE) * self.per_class)
            is_val = np.arange(len(labels)) % self.per_class >= num_fitted
        else:
            is_val = draw_held_out(labels, self.split_seed)
        return np.flatnonzero(is_val == (self.split == 'val'))
