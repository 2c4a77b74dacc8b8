"""Writes videos with PyAV.

OpenCV's wheels encode no H.264, and browsers play little else.
"""

from pathlib import Path

import av
import numpy as np


def write_video(path: str | Path, frames: np.ndarray, fps: int) -> None:
    """Write frames as H.264 in an MP4 file.

    Args:
        path (str | Path): Where to; overwritten.
        frames (np.ndarray): uint8 ``[T, H, W]`` (gray) or ``[T, H, W, 3]``
            (RGB), H and W even.
        fps (int): Frames a second.
    """
    if frames.ndim == 3:
        frames = np.repeat(frames[..., None], 3, axis=-1)
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('libx264', rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = 'yuv420p'
        stream.options = dict(crf='16', preset='veryfast', threads='1')
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(frame), format='rgb24'
            )
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
