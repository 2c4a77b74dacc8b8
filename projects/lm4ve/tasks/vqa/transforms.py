"""Steps of a pipeline; the last one packs an image and its texts, as the model takes them."""

from collections.abc import Sequence

import mmcv
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmpretrain.datasets.transforms import SolarizeAdd as HostSolarizeAdd
from mmpretrain.datasets.transforms import Translate

from lm4ve.errors import require
from lm4ve.registry import TRANSFORMS
from lm4ve.text.structures import VisionLanguageDataSample

#: What a packed sample keeps of an entry by default.
META_KEYS = (
    'sample_idx',
    'img_path',
    'ori_shape',
    'img_shape',
    'text',
    'gt_answers',
    'question_id',
    'question_type',
    'answer_type',
    'image_id',
    'caption_ids',
)


@TRANSFORMS.register_module()
class SolarizeAdd(HostSolarizeAdd):
    """METER's operation: adds to all pixels, then inverts those that are bright.

    mmpretrain's adds to dark pixels alone, and inverts none.
    """

    def transform(self, results: dict) -> dict:
        if self.random_disable():
            return results
        magnitude = self.magnitude
        if magnitude is None:
            magnitude = self.random_magnitude()
        added = np.minimum(results['img'] + float(magnitude), 255).astype(np.uint8)
        results['img'] = np.where(added < self.thr, added, 255 - added)
        return results


@TRANSFORMS.register_module()
class TranslateByPixels(Translate):
    """METER's shift: by pixels of the picture as it is, whatever its size.

    mmpretrain's ``Translate`` shifts by a share of the picture's width or height.
    Takes its arguments; ``magnitude`` and ``magnitude_range`` are in pixels.
    """

    def transform(self, results: dict) -> dict:
        if self.random_disable():
            return results
        offset = self.magnitude
        if offset is None:
            offset = self.random_magnitude()
        results['img'] = mmcv.imtranslate(
            results['img'],
            self.random_negative(offset),
            direction=self.direction,
            border_value=self.pad_val,
            interpolation=self.interpolation,
        )
        return results


@TRANSFORMS.register_module()
class BlankImage(BaseTransform):
    """Replace the pixels by one gray, for controls that see the texts only.

    Args:
        level (int): The gray, 0 to 255.
    """

    def __init__(self, level: int = 127) -> None:
        self.level = level

    def transform(self, results: dict) -> dict:
        results['img'] = np.full_like(results['img'], self.level)
        return results


@TRANSFORMS.register_module()
class PackVisionLanguage(BaseTransform):
    """To what the model takes: ``inputs`` and ``data_samples``.

    ``inputs`` is the image, uint8 ``[3, H, W]``, its channels as they were loaded
    (BGR). ``data_samples`` is a
    :class:`lm4ve.text.structures.VisionLanguageDataSample` whose
    metainfo has the texts; the model's preprocessor turns them into tokens.

    Args:
        meta_keys (Sequence[str]): What the sample keeps of an entry, where it is there.

    Raises:
        UserError: An image has other channels.
    """

    def __init__(self, meta_keys: Sequence[str] = META_KEYS) -> None:
        self.meta_keys = tuple(meta_keys)

    def transform(self, results: dict) -> dict:
        image = results['img']
        if image.ndim == 2:
            image = np.repeat(image[..., None], 3, axis=-1)
        require(
            image.shape[-1] == 3,
            f"'{results.get('img_path')}' has {image.shape[-1]} channels, not 3. Fix: convert it "
            'to RGB.',
        )
        meta = {key: results[key] for key in self.meta_keys if key in results}
        sample = VisionLanguageDataSample(metainfo=meta)
        pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        return dict(inputs=pixels, data_samples=sample)
