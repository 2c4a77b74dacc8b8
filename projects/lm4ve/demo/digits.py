"""scikit-learn's handwritten digits as an image classification dataset.

1,797 real 8 x 8 scans (UCI, Alpaydin and Kaynak) that come with the package:
enough to train a small ViT on a CPU in a minute, without a download.
"""
import numpy as np
from mmengine.dataset import BaseDataset
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from lm4ve.errors import UserError
from lm4ve.registry import DATASETS

#: Share of the held-out split, and the seed that draws it (stratified).
TEST_SHARE = 0.3
SPLIT_SEED = 0


@DATASETS.register_module()
class DigitsDataset(BaseDataset):
    """Handwritten digits, 8 x 8 pixels.

    Args:
        split (str): 'train' (70 %, 1,257 images) or 'test' (30 %, 540).
        **kwargs: Of :class:`mmengine.dataset.BaseDataset`.

    Each sample gives the pipeline ``img`` (uint8 ``[8, 8, 3]``, three equal
    channels, since image pipelines expect colour) and ``gt_label``.
    """

    METAINFO = dict(classes=tuple(str(i) for i in range(10)))

    def __init__(self, split: str = 'train', **kwargs) -> None:
        if split not in ('train', 'test'):
            raise UserError(f"dataset.split='{split}' must be 'train' or "
                            "'test'.")
        self.split = split
        super().__init__(**kwargs)

    def load_data_list(self) -> list:
        digits = load_digits()
        train, test = train_test_split(
            np.arange(len(digits.target)),
            test_size=TEST_SHARE,
            random_state=SPLIT_SEED,
            stratify=digits.target)
        pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
        return [
            dict(
                img=np.repeat(pixels[i][..., None], 3, axis=-1),
                img_shape=(8, 8),
                ori_shape=(8, 8),
                gt_label=int(digits.target[i]))
            for i in (train if self.split == 'train' else test)
        ]
