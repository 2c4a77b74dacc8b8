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

#: Share of the held-out split, and the seed that draws it (stratified).
TEST_SHARE = 0.3
SPLIT_SEED = 0
#: Share of the training split that is held out for tuning (stratified, same seed).
VAL_SHARE = 0.2
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
        train, test = _cut(np.arange(len(digits.target)), digits.target, TEST_SHARE)
        fit, val = _cut(train, digits.target, VAL_SHARE)
        chosen = dict(train=train, fit=fit, val=val, test=test)[self.split]
        pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
        return [
            dict(
                img=np.repeat(pixels[i][..., None], 3, axis=-1),
                img_shape=(8, 8),
                ori_shape=(8, 8),
                gt_label=int(digits.target[i]),
            )
            for i in chosen
        ]


def _cut(indices: np.ndarray, labels: np.ndarray, share: float) -> list:
    """Cut indices in two, ``share`` of them in the second part, stratified."""
    return train_test_split(
        indices, test_size=share, random_state=SPLIT_SEED, stratify=labels[indices]
    )
