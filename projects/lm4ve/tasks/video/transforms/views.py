"""The views of a test as VideoMAE's release takes them, to the frame and to the pixel.

mmaction2's ``UniformSample`` gives the same frames to both clips of a video of 16 to 24
frames; its ``Resize`` rounds the long side to the nearest pixel; its ``ThreeCrop`` stops
a pixel before the end of a side that is longer than the crop by an odd number.
"""

import numpy as np
from mmaction.datasets.transforms import Resize
from mmaction.datasets.transforms import ThreeCrop as HostThreeCrop
from mmcv.transforms import BaseTransform

from lm4ve.errors import require
from lm4ve.registry import TRANSFORMS


@TRANSFORMS.register_module()
class UniformViews(BaseTransform):
    """Take clips that have one frame of each of equal segments of a video.

    A video of N frames has ``clip_len`` segments of N / ``clip_len`` frames, which need
    not be whole. Clip k takes the frame at k / ``num_clips`` of each segment, rounded
    down: with two clips the first and the middle one.

    Args:
        clip_len (int): Frames of a clip.
        num_clips (int): Clips of a video.

    Required keys: ``total_frames`` and ``start_index``. Added keys: ``frame_inds``, int32
    ``[num_clips * clip_len]``, clip after clip; ``clip_len``, ``num_clips`` and
    ``frame_interval``, which is None.
    """

    def __init__(self, clip_len: int, num_clips: int = 1) -> None:
        self.clip_len = clip_len
        self.num_clips = num_clips

    def transform(self, results: dict) -> dict:
        """Set the indices of the frames."""
        segment = results['total_frames'] / self.clip_len
        starts = segment * np.arange(self.clip_len)
        shifts = segment * np.arange(self.num_clips) / self.num_clips
        # Rounded down once, after the sum: each clip has its own frames.
        frames = np.floor(shifts[:, None] + starts).ravel()
        results['frame_inds'] = (frames + results['start_index']).astype(np.int32)
        results['clip_len'] = self.clip_len
        results['num_clips'] = self.num_clips
        results['frame_interval'] = None
        return results


@TRANSFORMS.register_module()
class ResizeShortSide(BaseTransform):
    """Resize frames to a length of the short side; the long side is rounded down.

    Args:
        size (int): Of the short side, in pixels.

    Required keys: ``imgs`` and ``img_shape``, which change as by mmaction2's ``Resize``.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def transform(self, results: dict) -> dict:
        """Resize ``imgs``, bilinearly."""
        height, width = results['img_shape']
        short = min(height, width)
        scale = (self.size * width // short, self.size * height // short)
        return Resize(scale, keep_ratio=False)(results)


@TRANSFORMS.register_module()
class ThreeCrop(HostThreeCrop):
    """mmaction2's three crops, of which the last one ends where the picture does."""

    def transform(self, results: dict) -> dict:
        """Cut the crops out of ``imgs``: first, middle and last, one after another.

        Raises:
            UserError: Frames are smaller than a crop, or larger in both directions.
        """
        frames = results['imgs']
        height, width = frames[0].shape[:2]
        crop_width, crop_height = self.crop_size
        rests = (width - crop_width, height - crop_height)
        require(
            min(rests) == 0,
            f'ThreeCrop: the short side of frames of {width} x {height} pixels is not that of '
            f'crop_size={self.crop_size}. Fix: lm4ve.ResizeShortSide before it.',
        )
        crops = []
        boxes = []
        for part in (0, 0.5, 1):
            left, top = (int(part * rest) for rest in rests)
            right, bottom = left + crop_width, top + crop_height
            crops += [frame[top:bottom, left:right] for frame in frames]
            boxes += [(left, top, right, bottom)] * len(frames)
        results['imgs'] = crops
        results['crop_bbox'] = np.array(boxes)
        results['img_shape'] = (crop_height, crop_width)
        return results
