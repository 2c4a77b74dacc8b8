"""Finds damaged video files, which decoders do not always report.

decord returns repeated frames for a truncated file, or tries for minutes; PyAV raises an
``IndexError`` for an audio file; and a video of one frame trains as a still picture.
"""

import io
import os
from typing import BinaryIO

import av

# FFmpeg's formats whose frames lie in other files.
_PLAYLISTS = ('concat', 'hls', 'dash', 'imf', 'sdp', 'rtsp')
# What Matroska's header and its one segment begin with; both lie in the first bytes.
_EBML, _SEGMENT = b'\x1a\x45\xdf\xa3', b'\x18\x53\x80\x67'
_HEAD = 4096


def find_defect(path: str | BinaryIO, decode: bool = False) -> str | None:
    """Return what is wrong with a video file.

    Args:
        path (str or BinaryIO): A local file, or its content. Its bytes decide its format.
        decode (bool): Decode all of it too. Without, its packets are read and
            counted, but for the first frame not decoded.

    Returns:
        str or None: The defect, worded to follow the file's name, or None. Damage inside the
        pictures is found by decoding only, and not all of it: decoders conceal what they can.
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

    FFmpeg reports nothing where a file was cut between two packets, and the format does not store
    the number of frames.
    """
    file.seek(0)
    head = file.read(_HEAD)
    if not head.startswith(_EBML):
        return 0
    at, length = _element_size(head, len(_EBML))
    at += length or 0
    if head[at : at + len(_SEGMENT)] != _SEGMENT:
        return 0
    at, length = _element_size(head, at + len(_SEGMENT))
    return 0 if length is None else at + length - size


def _element_size(data: bytes, at: int) -> tuple[int, int | None]:
    """Read the size of an element of EBML (RFC 8794, section 6).

    Returns:
        tuple[int, int | None]: Where its content begins, and how long it is; None for a
        stream that was written without knowing its end.
    """
    first = data[at] if at < len(data) else 0
    length = 9 - first.bit_length()  # leading zeros count the bytes that follow
    if not first or at + length > len(data):
        return at, None
    bits = 7 * length
    value = int.from_bytes(data[at : at + length], 'big') & ((1 << bits) - 1)
    return at + length, None if value == (1 << bits) - 1 else value


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
    if packets < 2:
        return f'has {packets} frame(s), no motion'
    if decode and frames < 2:
        return f'has {frames} frame(s) that can be decoded of {packets}'
    return None
