"""Finds damaged video files, which decoders do not always report; writes videos.

decord returns repeated frames for a truncated file, or tries for minutes; PyAV raises
an ``IndexError`` for an audio file; and a video of one frame trains as a still picture.
OpenCV's wheels encode no H.264, and browsers play little else, so PyAV writes.
"""

import io
import os
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np

# FFmpeg's formats whose frames lie in other files.
_PLAYLISTS = ('concat', 'hls', 'dash', 'imf', 'sdp', 'rtsp')
# The first bytes of a Matroska (WebM) file and of its one segment; both lie in its
# head.
_EBML, _SEGMENT, _HEAD = b'\x1a\x45\xdf\xa3', b'\x18\x53\x80\x67', 4096


def find_defect(path: str | BinaryIO, decode: bool = False) -> str | None:
    """Return what is wrong with a video file.

    Args:
        path (str or BinaryIO): A local file, or its content. Its bytes decide its
            format.
        decode (bool): Decode all of it too. Without, its packets are read and
            counted, but for the first frame not decoded.

    Returns:
        str or None: The defect, worded to follow the file's name, or None. Damage
            inside the
        pictures is found by decoding only, and not all of it: decoders conceal what
            they can.
    """
    try:
        with open(path, 'rb') if isinstance(path, (str, os.PathLike)) else path as file:
            size = file.seek(0, io.SEEK_END)
            if size == 0:
                return 'is empty (0 bytes)'
            missing = _missing_bytes(file, size)
            file.seek(0)
            with av.open(path) as container:
                if container.format.name.partition(',')[0] in _PLAYLISTS:
                    return 'is a list of other files, which are not read'
                if not container.streams.video:
                    return 'has no video stream'
                if missing > 0:
                    return f'is truncated: its last {missing} bytes are missing'
                return _find_in_stream(container, container.streams.video[0], decode)
    except FileNotFoundError:
        return 'does not exist'
    except (av.FFmpegError, OSError, ValueError) as e:
        return f'cannot be read ({e})'


def _missing_bytes(file: BinaryIO, size: int) -> int:
    """Return how many bytes a Matroska (WebM) file lacks of the length of its segment.

    FFmpeg reports nothing where a file was cut between two packets, and the format does
    not store the number of frames. A live stream is written without a length.
    """
    file.seek(0)
    head, end = file.read(_HEAD), 0
    for element in (_EBML, _SEGMENT):
        if not head.startswith(element, end) or len(head) < end + len(element) + 8:
            return 0
        # RFC 8794, section 6: the leading zeros of a number count the bytes that
        # follow.
        at = end + len(element)
        width = 9 - head[at].bit_length()
        length = int.from_bytes(head[at : at + width], 'big') & ((1 << 7 * width) - 1)
        if length == (1 << 7 * width) - 1:
            return 0
        end = at + width + length
    return end - size


def _find_in_stream(container, stream, decode: bool) -> str | None:
    promised, packets, frames = stream.frames, 0, 0
    for packet in container.demux(stream):
        if packet.is_corrupt:
            return f'is truncated after {packets} of {promised or "?"} frames'
        if decode or frames == 0:
            frames += len(packet.decode())
        packets += packet.size > 0  # the last one only flushes
    if promised and packets < promised:
        return f'is truncated after {packets} of {promised} frames'
    if packets and not frames:
        return 'cannot be decoded'
    found = frames if decode else packets
    return None if packets > 1 and found > 1 else f'has {found} frame(s), no motion'


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
