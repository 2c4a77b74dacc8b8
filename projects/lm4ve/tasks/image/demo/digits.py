"""scikit-learn's handwritten digits as an image classification dataset.

1,797 real 8 x 8 scans (UCI, Alpaydin and Kaynak) that come with the package:
enough to train a small ViT on a CPU in a minute, without a download.
"""

import numpy as np
from mmengine.dataset import BaseDataset
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from lm4ve.errors import check
from lm4ve.registry import DATASETS

#: What is cut, into which splits, and the share of the second one (stratified).
CUTS = (('train', 'train', 'test', 0.3), ('train', 'fit', 'val', 0.2))
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
        digits = load_digits()
        labels, parts = digits.target, dict(train=np.arange(len(digits.target)))
        for whole, first, second, share in CUTS:
            stratify = labels[parts[whole]]
            parts[first], parts[second] = train_test_split(
                parts[whole], test_size=share, random_state=0, stratify=stratify
            )
        pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
        sizes = dict(img_shape=(8, 8), ori_shape=(8, 8))
        return [
            dict(img=np.repeat(pixels[i][..., None], 3, axis=-1), gt_label=int(labels[i]), **sizes)
            for i in parts[self.split]
        ]
