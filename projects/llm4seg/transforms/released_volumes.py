"""What MedVisionLlama's released code (arXiv 2410.02458) does to volumes, step by step.

It reads files with SimpleITK and works on their arrays with SciPy. Each step here gives
the same numbers, and keeps the volume's affine right beside them, of which the metrics
read the spacing.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from monai.data import MetaTensor
from scipy import ndimage

from lm4ve.errors import check
from lm4ve.registry import TRANSFORMS

_VOLUMES = ('img', 'seg')


@TRANSFORMS.register_module()
class ReverseAxes(BaseTransform):
    """Put the axes of ``img`` and ``seg`` into SimpleITK's order: ``[C, D, W, H]``.

    nibabel and MONAI begin with the axis that a file varies fastest, SimpleITK's arrays
    end with it. A model whose weights were trained on the one order needs it.
    """

    def transform(self, results: dict) -> dict:
        """Reverse the three axes of each volume, and those of its affine."""
        for key in _VOLUMES:
            if key in results:
                volume = results[key]
                affine = volume.affine[:, [2, 1, 0, 3]]
                voxels = volume.as_tensor().permute(0, 3, 2, 1)
                results[key] = MetaTensor(voxels, affine=affine)
        return results


@TRANSFORMS.register_module()
class SelectChannel(BaseTransform):
    """Keep one channel of ``img``.

    ``use`` of :class:`llm4seg.LoadVolume` does so before all other steps;
    this one may come after a step that is to see all channels.

    Args:
        channel (int): Its index.
    """

    def __init__(self, channel: int) -> None:
        check('SelectChannel.channel', channel, kind=int, least=0)
        self.channel = channel

    def transform(self, results: dict) -> dict:
        """Cut the image to ``[1, ...]``."""
        img = results['img']
        check('SelectChannel.channel', self.channel, most=len(img) - 1)
        results['img'] = img[self.channel : self.channel + 1]
        return results


@TRANSFORMS.register_module()
class ZoomVolume(BaseTransform):
    """Resize ``img`` and ``seg`` linearly, by SciPy; the outermost voxels stay in their places.

    Of the label, each voxel that touches a structure belongs to it: it becomes 1 where
    the interpolated value is above 0. So structures grow by up to a voxel.

    Args:
        size (Sequence[int]): The new lengths of the three axes.
    """

    def __init__(self, size: Sequence[int]) -> None:
        self.size = tuple(size)

    def transform(self, results: dict) -> dict:
        """Resize the volumes that there are."""
        results['img'] = self._zoom(results['img'])
        if 'seg' in results:
            seg = self._zoom(results['seg'])
            results['seg'] = (seg > 0).to(seg.dtype)
        return results

    def _zoom(self, volume: Any) -> MetaTensor:
        """Resize a volume ``[C, ...]``, each channel on its own."""
        old_size = np.array(volume.shape[1:])
        factors = np.array(self.size) / old_size
        channels = []
        for channel in volume.as_tensor().numpy():
            channels.append(ndimage.zoom(channel, factors, order=1))
        # The corners stay, so that the steps between voxels stretch by these factors.
        steps = np.ones(4)
        steps[:3] = (old_size - 1) / np.maximum(np.array(self.size) - 1, 1)
        affine = volume.affine @ torch.from_numpy(np.diag(steps))
        return MetaTensor(torch.from_numpy(np.stack(channels)), affine=affine)


@TRANSFORMS.register_module()
class RotateVolume(BaseTransform):
    """Turn ``img`` and ``seg`` by one random angle, by SciPy's cubic splines.

    What turns in from outside is 0. The affine stays as it is: it is that of the volume
    before it was turned.

    Args:
        degrees (float): The angle is drawn from both directions up to this one.
        image_axes (Sequence[int]): The two axes of the image's plane, 0 to 2.
        label_axes (Sequence[int]): The same of the label. Other axes than the image's
            are a defect of the released code: the label no longer fits its image.
    """

    def __init__(
        self,
        degrees: float,
        image_axes: Sequence[int] = (0, 1),
        label_axes: Sequence[int] = (0, 1),
    ) -> None:
        check('RotateVolume.degrees', degrees, kind=(int, float), above=0)
        self.degrees = degrees
        self.image_axes = _plane('RotateVolume.image_axes', image_axes)
        self.label_axes = _plane('RotateVolume.label_axes', label_axes)

    def transform(self, results: dict) -> dict:
        """Draw an angle, and turn the volumes that there are by it."""
        angle = np.random.uniform(-self.degrees, self.degrees)
        img = results['img']
        channels = []
        for channel in img.as_tensor().numpy():
            channels.append(_turn(channel, angle, self.image_axes))
        turned = torch.from_numpy(np.stack(channels))
        results['img'] = MetaTensor(turned, affine=img.affine)
        if 'seg' in results:
            seg = results['seg']
            # Of whole numbers SciPy gives whole numbers, rounded.
            labels = seg.as_tensor()[0].numpy().astype(np.int64)
            found = _turn(labels, angle, self.label_axes) > 0
            turned = torch.from_numpy(found)[None].to(seg.dtype)
            results['seg'] = MetaTensor(turned, affine=seg.affine)
        return results


def _plane(field: str, axes: Sequence[int]) -> tuple[int, ...]:
    """Return the axes of a plane, checked.

    Raises:
        UserError: They are not two different ones of 0, 1 and 2.
    """
    check(field, sorted(axes), choices=([0, 1], [0, 2], [1, 2]))
    return tuple(axes)


def _turn(voxels: np.ndarray, angle: float, axes: tuple[int, ...]) -> np.ndarray:
    """Turn voxels ``[H, W, D]`` in the plane of two axes; the size stays."""
    return ndimage.rotate(voxels, angle, axes=axes, reshape=False)
