"""scikit-learn's handwritten digits as an image classification data set.

1,797 real 8 x 8 scans (UCI, Alpaydin and Kaynak) that come with the package:
enough to train a small ViT on a CPU in a minute, without a download.
"""

import numpy as np
from mmengine.dataset import BaseDataset

from lm4ve.demo_data.digits import SPLITS, digit_pictures
from lm4ve.errors import check
from lm4ve.registry import DATASETS


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
        pictures, labels = digit_pictures(self.split, self.split_seed)
        data_list = []
        for picture, label in zip(pictures, labels.tolist(), strict=True):
            info = dict(
                img=np.repeat(picture[..., None], 3, axis=-1),
                gt_label=label,
                img_shape=(8, 8),
                ori_shape=(8, 8),
            )
            data_list.append(info)
        return data_list
