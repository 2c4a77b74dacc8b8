"""Real image files, whole and broken, for the tests of image data sets."""

from pathlib import Path

import cv2
import numpy as np


def encode(size: int = 24, seed: int = 0, suffix: str = '.jpg') -> bytes:
    """Return the bytes of an image of noise."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 255, (size, size, 3), dtype=np.uint8)
    return cv2.imencode(suffix, pixels)[1].tobytes()


def write(path: Path, data: bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return str(path)


def broken_files() -> dict:
    """Name -> bytes of files that are no whole image."""
    jpeg, png = encode(64), encode(64, suffix='.png')
    # The frame header's marker is overwritten; both ends are as they were.
    headless = jpeg.replace(b'\xff\xc0', b'\x00\x00', 1)
    assert headless != jpeg
    return {
        'empty.jpg': b'',
        'half.jpg': jpeg[: len(jpeg) // 2],
        'last-byte-missing.jpg': jpeg[:-1],
        'half.png': png[: len(png) // 2],
        'text.jpg': b'404: not found\n',
        'headless.jpg': headless,
        # Pillow reads it, and OpenCV does not.
        'float.tif': cv2.imencode('.tif', np.zeros((8, 8), np.float32))[1].tobytes(),
    }


def fill(root: Path, names, count: int = 3) -> None:
    """Write ``count`` images, all different, into each of the named class folders."""
    for c, name in enumerate(names):
        for i in range(count):
            suffix = ('.JPEG', '.png')[i % 2]
            write(
                root / name / f'{i}{suffix}', encode(seed=c * count + i, suffix=suffix)
            )
