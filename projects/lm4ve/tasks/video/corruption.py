"""Is a video file whole? Decoders do not always say.

decord answers a truncated file with repeated frames or after minutes of trying,
PyAV an audio file with an ``IndexError``, and a video of one frame trains as a
still picture without a word.
"""

import os

import av

# FFmpeg's formats whose frames lie in other files.
_PLAYLISTS = ('concat', 'hls', 'dash', 'imf', 'sdp', 'rtsp')


def find_defect(path: str, decode: bool = False) -> str | None:
    """Say what is wrong with a video file.

    Args:
        path (str): A local file; what it is follows from its bytes.
        decode (bool): Decode all of it too. Without, its packets are read and
            counted, but for the first frame not decoded.

    Returns:
        str or None: The defect, worded to follow the file's name, or None. What
        is damaged inside the pictures is found by decoding only, and not all of
        it: decoders conceal what they can.
    """
    try:
        if os.stat(path).st_size == 0:
            return 'is empty (0 bytes)'
        with av.open(path) as container:
            if container.format.name.partition(',')[0] in _PLAYLISTS:
                return 'is a list of other files, which are not read'
            if not container.streams.video:
                return 'has no video stream'
            return _find_in_stream(container, container.streams.video[0], decode)
    except FileNotFoundError:
        return 'does not exist'
    except (av.FFmpegError, OSError, ValueError) as e:
        return f'cannot be read ({e})'


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
