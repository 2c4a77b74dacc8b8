"""scikit-learn's handwritten digits as an image classification data set.

1,797 real 8 x 8 scans (UCI, Alpaydin and Kaynak) that come with the package:
enough to train a small ViT on a CPU in a minute, without a download.
"""

from collections.abc import Mapping

import numpy as np
from mmengine.dataset import BaseDataset

from lm4ve.data.digit_scans import DIGITS
from lm4ve.data.held_out import draw_held_out
from lm4ve.errors import check
from lm4ve.registry import DATASETS

SPLITS = ('train', 'fit', 'val', 'test')


@DATASETS.register_module()
class DigitsDataset(BaseDataset):
    """Handwritten digits, 8 x 8 pixels.

    Args:
        split (str): 'train' (70 %, 1,257 images) or 'test' (30 %, 540). For
            choosing hyper-parameters without the test split, 'train' itself is
            cut in two: 'fit' (1,005 images) and 'val' (252).
        split_seed (int, optional): Draws this cut, a fifth of each digit to 'val'. By
            default it is always the same.
        **kwargs: Passed to :class:`mmengine.dataset.BaseDataset`.

    Each sample gives the pipeline ``img`` (uint8 ``[8, 8, 3]``, three equal
    channels, since image pipelines expect color) and ``gt_label``.
    """

    METAINFO = dict(classes=tuple(str(i) for i in range(10)))

    def __init__(
        self, split: str = 'train', split_seed: int | None = None, **kwargs
    ) -> None:
        check('dataset.split', split, choices=SPLITS)
        self.split = split
        self.split_seed = split_seed
        super().__init__(**kwargs)

    def load_data_list(self) -> list:
        """Return picture and label of each digit of the split."""
        digits = np.load(DIGITS)
        pixels = np.rint(digits['images'] * (255 / 16)).astype(np.uint8)
        labels = digits['labels']
        data_list = []
        for index in self._choose(digits):
            info = dict(
                img=np.repeat(pixels[index][..., None], 3, axis=-1),
                gt_label=int(labels[index]),
                img_shape=(8, 8),
                ori_shape=(8, 8),
            )
            data_list.append(info)
        return data_list

    def _choose(self, digits: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the indices of the split's digits."""
        if self.split not in ('fit', 'val') or self.split_seed is None:
            return digits[self.split]
        train = digits['train']
        is_val = draw_held_out(digits['labels'][train], self.split_seed)
        return train[is_val == (self.split == 'val')]
