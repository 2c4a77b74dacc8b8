"""Takes out of a PNG what is no pixel, such as a color profile, before OpenCV reads it."""

_SIGNATURE = b'\x89PNG\r\n\x1a\n'
#: The chunks from which OpenCV makes pixels: those of the picture, its palette and its
#: transparency, its orientation (eXIf), and the frames of an animation.
_OF_PIXELS = frozenset(
    {
        b'IHDR',
        b'PLTE',
        b'tRNS',
        b'IDAT',
        b'IEND',
        b'eXIf',
        b'acTL',
        b'fcTL',
        b'fdAT',
    }
)
#: A chunk is its length, its name, that many bytes, and a checksum.
_LENGTH = 4
_HEAD = 8
_FRAME = 12


def without_notes(data: bytes) -> bytes:
    """Return a PNG without the chunks that OpenCV does not use; other files as they are.

    libpng, which OpenCV calls, reads them all the same, and prints a line such as
    "libpng warning: iCCP: known incorrect sRGB profile" for each picture. It prints to
    the error output of the process, past Python, so that nothing can collect or filter
    the lines. The pixels are the same without these chunks.

    Args:
        data (bytes): A file's content. What is cut or damaged stays as it is.
    """
    if not data.startswith(_SIGNATURE):
        return data
    kept = [_SIGNATURE]
    start = len(_SIGNATURE)
    while start + _HEAD <= len(data):
        length = int.from_bytes(data[start : start + _LENGTH], 'big')
        name = data[start + _LENGTH : start + _HEAD]
        end = start + _FRAME + length
        if name in _OF_PIXELS:
            kept.append(data[start:end])
        start = end
    kept.append(data[start:])
    return b''.join(kept)
