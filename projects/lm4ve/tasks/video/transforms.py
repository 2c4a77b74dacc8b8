"""RandAugment of VideoMAE's recipe: the same for all frames of a clip.

mmaction2 uses pytorchvideo's, which no longer installs beside current torchvision. VideoMAE's is
timm's, applied with one draw to a whole clip; timm is maintained, so this only repeats its draw
for each frame.
"""

import random

import numpy as np
from mmcv.transforms import BaseTransform
from PIL import Image
from timm.data.auto_augment import rand_augment_transform

from lm4ve.registry import TRANSFORMS

#: RGB of what comes in at the borders.
_FILL = (124, 116, 104)


@TRANSFORMS.register_module()
class ClipRandAugment(BaseTransform):
    """timm's RandAugment with one draw for all frames of a clip.

    Args:
        config (str): timm's notation. The default is VideoMAE's: magnitude 7
            with a standard deviation of 0.5, four operations a clip, all of
            them stronger with the magnitude (``run_class_finetuning.py``).

    Required and modified key: ``imgs``, a list of uint8 ``[H, W, 3]``.
    """

    def __init__(self, config: str = 'rand-m7-n4-mstd0.5-inc1') -> None:
        self.config = config

    def transform(self, results: dict) -> dict:
        height, width = results['imgs'][0].shape[:2]
        # As in timm's own pipeline; shifts are a share of the picture.
        shift = int(min(height, width) * 0.45)
        options = dict(translate_const=shift, img_mean=_FILL, interpolation=Image.BICUBIC)
        augment = rand_augment_transform(self.config, options)
        before = random.getstate(), np.random.get_state()
        frames = []
        for frame in results['imgs']:
            random.setstate(before[0])
            np.random.set_state(before[1])
            frames.append(np.asarray(augment(Image.fromarray(frame))))
        results['imgs'] = frames
        return results
