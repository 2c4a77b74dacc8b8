"""Finds pictures that show the same, whatever the format of their files.

A picture in training and in validation makes a score too high, and one under two labels
cannot be learned. Copies have equal bytes, but a picture that was saved once more as
WebP, BMP or JPEG has other ones. So pictures are compared after decoding, in three steps:
small versions of all of them, gray versions of the pairs whose small ones are alike, then
the pixels of the few pairs that are left. Each picture is read once for its gray version:
of 3,000 pictures of calm water all small versions may be alike.

Found are equal files, and files in other formats without loss or with usual losses: of 29
pictures of scikit-image and scikit-learn all twins as BMP, TIFF and lossless WebP, 28 as
JPEG of quality 50 to 95 and as WebP of 80, 27 as JPEG of 30, and 27 of half their size. Of 150
cuts of 64 x 64 pixels 132 are found as JPEG of quality 75, and 82 of 30. Not found are
twins that are cropped, mirrored, turned or recolored, and tiny ones with losses: 35 of 150
scanned digits of 8 x 8 pixels as JPEG of quality 90, and none of 75, whose losses are as
large as what lies between two digits.

Taken for twins are different pictures that look the same but for noise, such as neighboring
frames of a film. Pictures of one color are twins where they are equal. Among scikit-learn's
1,797 scanned digits there is no such pair, at 8, 28 or 256 pixels: small versions of the two
that are most alike differ by 30 of 255, where those of twins may differ by 8.
"""

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from lm4ve.data.image_files import decode_pixels

#: The side of small versions, in pixels.
_SIDE = 8
#: The least side of a JPEG that is decoded at an eighth of its size.
_LEAST_REDUCED = 128
#: The most by which a value of small versions of twins differs, of 255.
_MOST_SMALL = 8
#: The most by which the mean of all values does: losses of a JPEG cancel out.
_MOST_MEAN = 2.0
#: The side of gray versions, in pixels.
_GRAY_SIDE = 32
#: What rounding adds to a difference of gray versions, of 255.
_ROUNDING = 0.1
#: The most by which gray pixels differ (root mean square), as a share of their spread.
_MOST_SHARE = 0.3


def shrink(data: bytes) -> np.ndarray | None:
    """Return the small version of a picture, by which twins are looked for.

    Args:
        data (bytes): A file's content.

    Returns:
        np.ndarray or None: uint8 ``[8, 8, 3]``. None: OpenCV does not read it.

    Measured on one CPU core: 23 ms for a JPEG of 12 megapixels, which takes 214 ms
    to decode.
    """
    # A JPEG is decoded faster at an eighth of its size, with the same means of blocks.
    pixels = None
    if data.startswith(b'\xff\xd8\xff'):
        pixels = decode_pixels(data, cv2.IMREAD_REDUCED_COLOR_8)
    if pixels is None or min(pixels.shape[:2]) < _LEAST_REDUCED:
        pixels = decode_pixels(data)
    if pixels is None:
        return None
    return shrink_pixels(pixels)


def shrink_pixels(pixels: np.ndarray) -> np.ndarray:
    """Return the small version of decoded pixels, uint8 ``[H, W, 3]``; see :func:`shrink`."""
    small: np.ndarray = cv2.resize(pixels, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    return small


def group_twins(
    small: Sequence[np.ndarray | None], read: Callable[[int], np.ndarray | None]
) -> list[int]:
    """Return the group of each picture: the place of the first of those that it is a twin of.

    Args:
        small (Sequence[np.ndarray]): What :func:`shrink` returns for each picture. A
            picture with None is on its own.
        read (Callable): Returns a picture's pixels by its place, uint8 ``[H, W, 3]``; None
            if it cannot be read.
    """
    first = list(range(len(small)))
    places = []
    rows = []
    for place, one in enumerate(small):
        if one is not None:
            places.append(place)
            rows.append(one.astype(np.int16).ravel())
    if not places:
        return first
    values = np.stack(rows)
    means = values.mean(1)
    # Only pictures of about the same mean are compared, which are neighbors when sorted.
    order = np.argsort(means, kind='stable')
    values = values[order]
    means = means[order]
    ends = np.searchsorted(means, means + _MOST_MEAN, side='right')
    grays = _GrayVersions(read)
    for row, end in enumerate(ends):
        differences = np.abs(values[row + 1 : end] - values[row]).max(1)
        alike = np.flatnonzero(differences <= _MOST_SMALL) + row + 1
        place = places[order[row]]
        others = [places[other] for other in order[alike]]
        pixels = None
        for other in grays.alike(place, others):
            if _root(first, place) == _root(first, other):
                continue
            if pixels is None:
                pixels = read(place)
            if _are_twins(pixels, read(other)):
                _join(first, place, other)
    return [_root(first, place) for place in range(len(small))]


class _GrayVersions:
    """Gray versions of pictures, which are made when they are asked for, and kept.

    Args:
        read (Callable): See :func:`group_twins`.
    """

    def __init__(self, read: Callable[[int], np.ndarray | None]) -> None:
        self._read = read
        self._versions: dict[int, np.ndarray | None] = {}

    def alike(self, place: int, others: Sequence[int]) -> list[int]:
        """Return those of other pictures that may be twins of a picture.

        Args:
            place (int): Where the picture stands in the sequence.
            others (Sequence[int]): Places of the other ones.
        """
        if not others:
            return []
        version = self._version_of(place)
        readable = []
        of_others = []
        for other in others:
            of_other = self._version_of(other)
            if of_other is not None:
                readable.append(other)
                of_others.append(of_other)
        if version is None or not readable:
            return []
        versions = np.stack(of_others)
        differences = np.sqrt(np.square(versions - version).mean(1))
        spreads = np.maximum(versions.std(1), version.std())
        bounds = _MOST_SHARE * spreads + _ROUNDING
        return [readable[i] for i in np.flatnonzero(differences <= bounds)]

    def _version_of(self, place: int) -> np.ndarray | None:
        """Return a picture's gray version, float32 ``[1024]``; None if it cannot be read."""
        if place not in self._versions:
            pixels = self._read(place)
            version = None
            if pixels is not None:
                gray = cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY).astype(np.float32)
                size = (_GRAY_SIDE, _GRAY_SIDE)
                version = cv2.resize(gray, size, interpolation=cv2.INTER_AREA).ravel()
            self._versions[place] = version
        return self._versions[place]


def _are_twins(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    """Return whether two pictures show the same, by their gray pixels."""
    if one is None or other is None:
        return False
    if one.size < other.size:
        one, other = other, one
    height, width = other.shape[:2]
    if one.shape != other.shape:
        one = cv2.resize(one, (width, height), interpolation=cv2.INTER_AREA)
    first = cv2.cvtColor(one, cv2.COLOR_BGR2GRAY).astype(np.float32)
    second = cv2.cvtColor(other, cv2.COLOR_BGR2GRAY).astype(np.float32)
    difference = float(np.sqrt(np.square(first - second).mean()))
    return difference <= _MOST_SHARE * float(second.std())


def _root(first: list[int], place: int) -> int:
    """Return the first picture of a picture's group."""
    while first[place] != place:
        place = first[place]
    return place


def _join(first: list[int], one: int, other: int) -> None:
    """Make one group of those of two pictures."""
    one = _root(first, one)
    other = _root(first, other)
    first[max(one, other)] = min(one, other)
