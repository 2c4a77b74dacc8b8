"""Finds damaged video files, which decoders do not always report; writes videos, reads frames.

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

from lm4ve.data.folder_listing import OTHER_ENDING, FolderListing, warn_left_out
from lm4ve.data.image_files import read_pixels
from lm4ve.data.suffixes import has_image_suffix
from lm4ve.errors import UserError
from lm4ve.files import is_file, is_storage_error

#: FFmpeg's formats whose frames lie in other files.
_PLAYLISTS = ('concat', 'hls', 'dash', 'imf', 'sdp', 'rtsp')
#: The first bytes of a Matroska (WebM) file and of its one segment.
_EBML = b'\x1a\x45\xdf\xa3'
_SEGMENT = b'\x18\x53\x80\x67'
#: Both lie within the first bytes of a file, so many.
_HEAD = 4096


def find_defect(path: str | os.PathLike | BinaryIO, decode: bool = False) -> str | None:
    """Return what is wrong with a video file.

    Args:
        path (str, PathLike or BinaryIO): A local file, or a stream of its content, which is
            closed at the end. The bytes decide the format, not the name.
        decode (bool): Decode all frames. Otherwise all packets are read and counted,
            and only the first frame is decoded.

    Returns:
        str or None: The defect, worded to follow the file's name, or None. Damage
        inside the pictures is found by decoding only, and not all of it: decoders
        conceal what they can.

    Raises:
        OSError, StorageError: Storage does not give the file, as far as it is not FFmpeg
            that reads it.
    """
    try:
        if isinstance(path, (str, os.PathLike)):
            if not is_file(path):
                return 'does not exist, or is no file'
            with open(path, 'rb') as file:
                # FFmpeg reads a file by its path, which needs no call of Python.
                return _find_in_file(file, source=path, decode=decode)
        stream = path
        with stream:
            return _find_in_file(stream, source=stream, decode=decode)
    except (av.FFmpegError, OSError, ValueError) as error:
        if is_storage_error(error):
            raise
        return f'cannot be read ({error})'


def _find_in_file(
    file: BinaryIO, source: str | os.PathLike | BinaryIO, decode: bool
) -> str | None:
    """Return what is wrong with an open video file, or None.

    Args:
        file (BinaryIO): The file.
        source (str | os.PathLike | BinaryIO): What FFmpeg opens: the path of the file, or
            the same stream.
        decode (bool): Decode all frames, not only the first one.
    """
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
    """Return how many bytes are cut off a Matroska (WebM) file; 0 where that is not known.

    FFmpeg reports nothing where a file was cut between two packets, and the format does
    not store the number of frames. But a file consists of two elements, a header and the
    segment with everything else, and each begins with an identifier and its length. A
    live stream is written without the length, and other formats begin otherwise.

    Args:
        file (BinaryIO): The file.
        size (int): Its size in bytes.
    """
    file.seek(0)
    head = file.read(_HEAD)
    # Where the next element begins; at last, where the segment should end.
    position = 0
    for identifier in (_EBML, _SEGMENT):
        length_at = position + len(identifier)
        if not head.startswith(identifier, position) or len(head) < length_at + 8:
            return 0
        # RFC 8794, section 6: a length has 1 to 8 bytes, one more than its first byte
        # has leading zeros. After the zeros and a 1, the other 7 bits a byte are the
        # value; if all of these are 1, the length is unknown.
        num_bytes = 9 - head[length_at].bit_length()
        value_bits = (1 << 7 * num_bytes) - 1
        stored = int.from_bytes(head[length_at : length_at + num_bytes], 'big')
        length = stored & value_bits
        if length == value_bits:
            return 0
        position = length_at + num_bytes + length
    # Bytes may also follow the segment.
    return max(0, position - size)


def _find_in_stream(container: Any, stream: Any, decode: bool) -> str | None:
    """Return what is wrong with a video stream, or None, after reading all of its packets.

    Args:
        container (av.container.InputContainer): The open file.
        stream (av.VideoStream): Its video stream.
        decode (bool): Decode all packets; else only until there is a frame.
    """
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
    # A packet holds a frame.
    num_frames = frames if decode else packets
    if packets <= 1 or num_frames <= 1:
        return f'has {num_frames} frame(s), no motion'
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


def read_frames(folder: Path) -> np.ndarray:
    """Read a folder's images as one RGB array, sorted by number, then by name.

    A warning names what else is in the folder.

    Raises:
        UserError: There are fewer than two frames, of several sizes, or damaged ones.
    """
    files = []
    others = FolderListing()
    for path in folder.iterdir():
        if has_image_suffix(path):
            files.append(path)
        elif path.is_file():
            others.leave_out(OTHER_ENDING, path.name)
    warn_left_out(others, folder, 'frames')
    # Numbers need no leading zeros: 9 comes before 10.
    files.sort(key=lambda path: (len(path.stem), path.stem))
    frames = [read_pixels(path) for path in files]
    sizes = {frame.shape for frame in frames}
    if len(frames) < 2 or len(sizes) > 1:
        raise UserError(f"'{folder}' must hold two or more images of one size.")
    return np.stack(frames)[..., ::-1]
