"""A copy of a picture through JPEG, which some released code trains on."""

import io

import numpy as np
from mmcv.transforms import BaseTransform
from PIL import Image

from lm4ve.registry import TRANSFORMS


@TRANSFORMS.register_module()
class JPEGCopy(BaseTransform):
    """Replace a picture by what Pillow reads of the JPEG that Pillow writes of it.

    LLMBoostMedical's code keeps MedMNIST's pictures as such files
    (``2D_classification/datasets/data_load.py:53``), of Pillow's own quality of 75 and
    with colours of half the resolution. A picture of 28 pixels loses much by it.
    """

    def transform(self, results: dict) -> dict:
        """Replace ``img``, uint8 ``[H, W, 3]`` in BGR, by its copy."""
        rgb = results['img'][..., ::-1]
        file = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(rgb)).save(file, format='JPEG')
        with Image.open(file) as copy:
            rgb = np.asarray(copy.convert('RGB'))
        results['img'] = np.ascontiguousarray(rgb[..., ::-1])
        return results
