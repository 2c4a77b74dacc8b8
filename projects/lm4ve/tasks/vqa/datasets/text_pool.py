"""Captions from which false ones are drawn, without one that describes the image."""

from collections.abc import Sequence

import numpy as np

#: Rounds of drawing more than needed before all captions are looked through.
_ROUNDS = 8


class TextPool:
    """The captions of a training set, in few bytes that worker processes share.

    Args:
        captions (Sequence[str]): All of them.
        images (Sequence[int]): The number of the image that each one describes.

    Draws come from numpy's global generator, which the suite seeds for every batch.
    """

    def __init__(self, captions: Sequence[str], images: Sequence[int]) -> None:
        number_of: dict[str, int] = {}
        #: ``[T]``, each caption's number among the different texts.
        self.texts = np.array([number_of.setdefault(c, len(number_of)) for c in captions])
        self.distinct = len(number_of)
        encoded = [text.encode('utf-8', 'surrogatepass') for text in number_of]
        self._ends = np.cumsum([len(e) for e in encoded])
        self._bytes = np.frombuffer(b''.join(encoded), np.uint8)
        images = np.asarray(images)
        order = np.argsort(images, kind='stable')
        self._by_image = self.texts[order]
        self._first = np.searchsorted(images[order], np.arange(images.max(initial=-1) + 2))

    def texts_of(self, image: int) -> np.ndarray:
        """Return the numbers of an image's texts."""
        return self._by_image[self._first[image] : self._first[image + 1]]

    def most_of_one_image(self) -> int:
        """Return how many texts the image with most of them has."""
        return int(np.diff(self._first).max(initial=0))

    def text(self, number: int) -> str:
        """Return a text by its number."""
        start = self._ends[number - 1] if number else 0
        return self._bytes[start : self._ends[number]].tobytes().decode('utf-8', 'surrogatepass')

    def draw(self, image: int, count: int, checked: bool = True) -> list[str]:
        """Draw false captions for an image.

        Args:
            image (int): Its number.
            count (int): How many.
            checked (bool): None of them is a text of the image, and all differ. Without,
                any caption may be drawn, as in METER's release.

        Raises:
            ValueError: There are not so many.
        """
        if not checked:
            return [
                self.text(self.texts[i]) for i in np.random.randint(len(self.texts), size=count)
            ]
        own, chosen = set(self.texts_of(image).tolist()), []
        for _ in range(_ROUNDS):
            # Uniform over captions, so that a text that many images have is drawn more often.
            for i in np.random.randint(len(self.texts), size=count + 1):
                number = int(self.texts[i])
                if len(chosen) < count and number not in own:
                    own.add(number)
                    chosen.append(number)
            if len(chosen) == count:
                return [self.text(number) for number in chosen]
        left = np.setdiff1d(self.texts, list(own))
        chosen += np.random.choice(left, count - len(chosen), replace=False).tolist()
        return [self.text(number) for number in chosen]
