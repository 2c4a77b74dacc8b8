"""Handwritten digits on photographs, with the mask of their strokes, as a data set.

Measuring whether activations select the foreground needs masks.
"""

import numpy as np

from lm4ve.demo_data.textured_digits import SIZE, draw_picture
from lm4ve.errors import check
from lm4ve.registry import DATASETS
from lm4ve.tasks.image.datasets.digits import DigitsDataset


@DATASETS.register_module()
class TexturedDigits(DigitsDataset):
    """scikit-learn's digits on crops of scikit-image's photographs.

    Splits are those of :class:`DigitsDataset`; digits *and* photographs of 'fit',
    'val' and 'test' are disjoint ('train' is 'fit' and 'val').

    Args:
        split (str): 'train' (1,257 digits), 'fit', 'val' or 'test' (540).
        variants (int): Pictures of each digit. A picture is determined by split,
            digit, variant and seed: with many variants, no two views in training
            are alike, on any number of workers and after a resume.
        max_angle (float): Digits are turned by up to so many degrees.
        seed (int): Another one gives other places, sizes and backgrounds.
        **kwargs: Passed to :class:`mmengine.dataset.BaseDataset`.

    Raises:
        UserError: ``variants`` is not positive, or a photograph is not in the
            installed scikit-image.

    Each sample gives the pipeline ``img`` (uint8 ``[32, 32, 3]``, BGR as mmcv reads
    files), ``gt_label``, ``gt_mask`` (uint8 ``[32, 32]``, 1 on the strokes) and
    ``photograph`` (the file's name). Pipelines do not turn or shift ``gt_mask``.
    """

    def __init__(
        self,
        split: str = 'train',
        variants: int = 1,
        max_angle: float = 0.0,
        seed: int = 0,
        **kwargs,
    ) -> None:
        check('dataset.variants', variants, least=1)
        self.variants = variants
        self.max_angle = max_angle
        self.seed = seed
        super().__init__(split=split, **kwargs)

    def load_data_list(self) -> list:
        """Keep the scans of the split, and return an entry for each picture to draw of them.

        A digit is drawn in several variants, each at another place on another photograph:
        first all digits in variant 0, then all in variant 1, and so on. An entry has the
        number of the digit's scan, its class and the variant.
        """
        digits = super().load_data_list()
        # Each float32 [8, 8], 0 (paper) to 1 (ink); the three channels are equal.
        self._inks = [digit['img'][..., 0].astype(np.float32) / 255 for digit in digits]
        data_list = []
        for variant in range(self.variants):
            for number, digit in enumerate(digits):
                info = dict(digit=number, gt_label=digit['gt_label'], variant=variant)
                data_list.append(info)
        return data_list

    def get_data_info(self, idx: int) -> dict:
        """Return entry ``idx`` with its picture and mask, the same ones each time."""
        info = super().get_data_info(idx)
        picture = draw_picture(
            self._inks[info['digit']],
            self.split,
            info['digit'],
            info['variant'],
            self.seed,
            self.max_angle,
        )
        return dict(
            info,
            img=picture.img,
            gt_mask=picture.mask,
            photograph=picture.photograph,
            img_shape=(SIZE, SIZE),
            ori_shape=(SIZE, SIZE),
        )
