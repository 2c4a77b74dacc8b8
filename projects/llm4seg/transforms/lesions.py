"""Masks of one lesion as the public sets store them, and turns of pictures with them."""

import numpy as np
from mmcv.transforms import BaseTransform

from lm4ve.errors import UserError, check
from lm4ve.registry import TRANSFORMS


@TRANSFORMS.register_module()
class RandomRotate90(BaseTransform):
    """Turn a picture and its mask by 0, 90, 180 or 270 degrees, each as likely.

    albumentations' transform of that name, which LLM4Seg's code uses. It comes after
    ``LoadAnnotations``.

    Args:
        prob (float): How often it turns at all, also by 0 degrees.
    """

    def __init__(self, prob: float = 0.5) -> None:
        check('RandomRotate90.prob', prob, least=0, most=1)
        self.prob = prob

    def transform(self, results: dict) -> dict:
        """Turn ``img`` and every map that ``seg_fields`` names."""
        if np.random.random() >= self.prob:
            return results
        quarters = np.random.randint(4)
        for field in ('img', *results.get('seg_fields', ())):
            turned = np.rot90(results[field], quarters)
            results[field] = np.ascontiguousarray(turned)
        results['img_shape'] = results['img'].shape[:2]
        return results


@TRANSFORMS.register_module()
class BinaryMask(BaseTransform):
    """Read a mask of black and white pixels as the classes 0 and 1.

    White is 255, which mmsegmentation would leave out of loss and metrics as unlabeled.
    It comes after ``LoadAnnotations``. Of lossy files, what is above 127 is the lesion;
    a mask of the numbers 0 and 1 stays as it is.

    Raises:
        UserError: A mask that is not black and white, such as one of several classes.
    """

    def transform(self, results: dict) -> dict:
        """Replace ``gt_seg_map``, where there is one, by the classes 0 and 1."""
        mask = results.get('gt_seg_map')
        if mask is None:
            return results
        highest = int(mask.max())
        if highest <= 1:
            return results
        if mask.ndim != 2 or highest < 128:
            raise UserError(
                f"'{results.get('seg_map_path')}' {list(mask.shape)} has values up to {highest}; a "
                'mask of one lesion has 0 and 255, or 0 and 1. Fix: one class a file.'
            )
        results['gt_seg_map'] = (mask > 127).astype(np.uint8)
        return results
