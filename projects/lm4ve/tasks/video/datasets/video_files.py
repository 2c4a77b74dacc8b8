"""Finds damaged video files, which decoders do not always report; writes videos.

decord returns repeated frames for a truncated file, or tries for minutes; PyAV raises
an ``IndexError`` for an audio file; and a video of one frame trains as a still picture.
OpenCV's wheels encode no H.264, and browsers play little else, so PyAV writes.
"""

import io
import os
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np

#: FFmpeg's formats whose frames lie in other files.
_PLAYLISTS = ('concat', 'hls', 'dash', 'imf', 'sdp', 'rtsp')
#: The first bytes of a Matroska (WebM) file and of its one segment.
_EBML = b'\x1a\x45\xdf\xa3'
_SEGMENT = b'\x18\x53\x80\x67'
#: Both lie within the first bytes of a file, so many.
_HEAD = 4096


def find_defect(path: str | BinaryIO, decode: bool = False) -> str | None:
    """Return what is wrong with a video file.

    Args:
        path (str or BinaryIO): A local file, or its content. Its bytes decide its
            format.
        decode (bool): Decode all of it too. Without, its packets are read and
            counted, but for the first frame not decoded.

    Returns:
        str or None: The defect, worded to follow the file's name, or None. Damage
        inside the pictures is found by decoding only, and not all of it: decoders
        conceal what they can.
    """
    try:
        if isinstance(path, (str, os.PathLike)):
            with open(path, 'rb') as file:
                return _find_in_file(file, path, decode)
        with path:
            return _find_in_file(path, path, decode)
    except FileNotFoundError:
        return 'does not exist'
    except (av.FFmpegError, OSError, ValueError) as error:
        return f'cannot be read ({error})'


def _find_in_file(
    file: BinaryIO, source: str | os.PathLike | BinaryIO, decode: bool
) -> str | None:
    """Return what is wrong with an open file, which FFmpeg opens by its source."""
    size = file.seek(0, io.SEEK_END)
    if size == 0:
        return 'is empty (0 bytes)'
    missing = _missing_bytes(file, size)
    file.seek(0)
    with av.open(source) as container:
        if container.format.name.partition(',')[0] in _PLAYLISTS:
            return 'is a list of other files, which are not read'
        if not container.streams.video:
            return 'has no video stream'
        if missing > 0:
            return f'is truncated: its last {missing} bytes are missing'
        return _find_in_stream(container, container.streams.video[0], decode)


def _missing_bytes(file: BinaryIO, size: int) -> int:
    """Return how many bytes a Matroska (WebM) file lacks of the length of its segment.

    FFmpeg reports nothing where a file was cut between two packets, and the format does
    not store the number of frames. A live stream is written without a length.
    """
    file.seek(0)
    head = file.read(_HEAD)
    # Where the next element begins.
    position = 0
    for element in (_EBML, _SEGMENT):
        number_at = position + len(element)
        if not head.startswith(element, position) or len(head) < number_at + 8:
            return 0
        # RFC 8794, section 6: the leading zeros of a number count the bytes that
        # follow; a number whose bits are all 1 means that the length is unknown.
        width = 9 - head[number_at].bit_length()
        unknown = (1 << 7 * width) - 1
        number = int.from_bytes(head[number_at : number_at + width], 'big')
        length = number & unknown
        if length == unknown:
            return 0
        position = number_at + width + length
    return position - size


def _find_in_stream(container: Any, stream: Any, decode: bool) -> str | None:
    """Return what is wrong with a video stream; read all packets, and decode some or all."""
    # 0 where the format does not store it.
    promised = stream.frames
    packets = 0
    frames = 0
    for packet in container.demux(stream):
        if packet.is_corrupt:
            return f'is truncated after {packets} of {promised or "?"} frames'
        if decode or frames == 0:
            frames += len(packet.decode())
        # The last packet is empty; decoding it returns the frames that are left.
        if packet.size > 0:
            packets += 1
    if packets < promised:
        return f'is truncated after {packets} of {promised} frames'
    if packets > 0 and frames == 0:
        return 'cannot be decoded'
    found = frames if decode else packets
    if packets <= 1 or found <= 1:
        return f'has {found} frame(s), no motion'
    return None


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
            pixels = np.ascontiguousarray(frame)
            picture = av.VideoFrame.from_ndarray(pixels, format='rgb24')
            container.mux(stream.encode(picture))
        # The frames that the encoder still holds.
        container.mux(stream.encode())
