"""scikit-learn's handwritten digits as an image classification data set.

1,797 real 8 x 8 scans (UCI, Alpaydin and Kaynak) that come with the package:
enough to train a small ViT on a CPU in a minute, without a download.
"""

import numpy as np
from mmengine.dataset import BaseDataset

from lm4ve.data.digit_scans import DIGITS
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
        **kwargs: Passed to :class:`mmengine.dataset.BaseDataset`.

    Each sample gives the pipeline ``img`` (uint8 ``[8, 8, 3]``, three equal
    channels, since image pipelines expect color) and ``gt_label``.
    """

    METAINFO = dict(classes=tuple(str(i) for i in range(10)))

    def __init__(self, split: str = 'train', **kwargs) -> None:
        check('dataset.split', split, choices=SPLITS)
        self.split = split
        super().__init__(**kwargs)

    def load_data_list(self) -> list:
        """Return picture and label of each digit of the split."""
        digits = np.load(DIGITS)
        pixels = np.rint(digits['images'] * (255 / 16)).astype(np.uint8)
        labels = digits['labels']
        data_list = []
        for index in digits[self.split]:
            info = dict(
                img=np.repeat(pixels[index][..., None], 3, axis=-1),
                gt_label=int(labels[index]),
                img_shape=(8, 8),
                ori_shape=(8, 8),
            )
            data_list.append(info)
        return data_list
