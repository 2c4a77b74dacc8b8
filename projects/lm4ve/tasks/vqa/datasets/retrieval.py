"""Data sets of images with captions: Karpathy's splits of Flickr30k and COCO, and your own."""

import os.path as osp
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from lm4ve.errors import check
from lm4ve.registry import DATASETS
from lm4ve.tasks.vqa.datasets.image_text import ImageTextDataset
from lm4ve.text.annotation_files import naming_file, read_json, read_rows, texts_of

#: Rounds of drawing more than needed before all captions are looked through.
_ROUNDS = 8


class TextPool:
    """The captions of a training set, in few bytes that worker processes share.

    Args:
        captions (Sequence[str]): All of them.

    Draws come from numpy's global generator, which the suite seeds for every batch.
    """

    def __init__(self, captions: Sequence[str]) -> None:
        number_of: dict[str, int] = {}
        numbers = [number_of.setdefault(text, len(number_of)) for text in captions]
        #: ``[T]``, each caption's number among the different texts.
        self.texts = np.array(numbers)
        self.distinct = len(number_of)
        encoded = [text.encode() for text in number_of]
        #: Where each text begins, and where the last one ends.
        self._starts = np.cumsum([0] + [len(text) for text in encoded])
        self._bytes = np.frombuffer(b''.join(encoded), np.uint8)

    def text(self, number: int) -> str:
        """Return a text by its number."""
        start = self._starts[number]
        end = self._starts[number + 1]
        return self._bytes[start:end].tobytes().decode()

    def draw(self, own: Sequence[int], count: int) -> list[str]:
        """Draw different texts, none of which is among those with the numbers ``own``.

        Raises:
            ValueError: There are not so many.
        """
        seen = set(own)
        chosen: list[int] = []
        for _ in range(_ROUNDS):
            # Uniform over captions, so that a text that many images have is drawn more
            # often.
            for i in np.random.randint(len(self.texts), size=count + 1):
                number = int(self.texts[i])
                if len(chosen) < count and number not in seen:
                    seen.add(number)
                    chosen.append(number)
            if len(chosen) == count:
                break
        missing = count - len(chosen)
        if missing:
            left = np.setdiff1d(self.texts, list(seen))
            chosen += np.random.choice(left, missing, replace=False).tolist()
        return [self.text(number) for number in chosen]


class CaptionDataset(ImageTextDataset):
    """Images with captions. A subclass says what its files hold.

    Equal captions of one image count once, as in METER. In training an entry is one
    caption with its image: ``text`` is that caption and ``num_negatives`` false ones,
    drawn anew each time. In a test an entry is an image with all of its captions.

    Args:
        *args: Passed to :class:`lm4ve.tasks.vqa.ImageTextDataset`.
        num_negatives (int): How many false captions are drawn in training.
        checked_negatives (bool): No false caption is one of the image's own captions,
            nor has the text of one, and all of them differ. False draws as METER's
            release does, any caption of the data set.
        **kwargs: Passed on as well.

    An entry has ``img_path``, ``text``, ``image_id`` and ``caption_ids``.

    Raises:
        UserError: Files are missing, damaged or of another kind; an image lies outside
            of its folder; nothing is left; there are too few captions to draw from.
    """

    def __init__(
        self,
        *args: Any,
        num_negatives: int = 15,
        checked_negatives: bool = True,
        **kwargs: Any,
    ) -> None:
        check('dataset.num_negatives', num_negatives, kind=int, least=0)
        self.num_negatives = num_negatives
        self.checked_negatives = checked_negatives
        self._pool: TextPool | None = None
        super().__init__(*args, **kwargs)

    def load_images(self) -> Iterable[dict]:
        """Yield one dict an image.

        Its entries: ``image`` (str, below the image folder), ``captions`` (list[str]),
        and if they are known ``image_id`` and ``caption_ids`` (one a caption).
        """
        raise NotImplementedError

    def load_data_list(self) -> list[dict]:
        """Return an entry for each image of the files, or in training for each caption."""
        images = self._load_entries()
        self.refuse_nothing(images)
        self.check_some_images([entry['img_path'] for entry in images])
        if self.test_mode:
            return images
        captions: list[str] = []
        for entry in images:
            captions += entry['text']
        self._pool = TextPool(captions)
        if self.checked_negatives:
            largest = max(len(entry['text']) for entry in images)
            most = self._pool.distinct - largest
            check('dataset.num_negatives', self.num_negatives, most=most)
        return _split_captions(images, self._pool.texts.tolist())

    def _load_entries(self) -> list[dict]:
        """Return an entry for each image that has a caption."""
        entries = []
        empty = []
        total = 0
        num_captions = 0
        with naming_file(self.ann_file, 'dataset.ann_file'):
            for total, row in enumerate(self.load_images(), start=1):
                image_id = row.get('image_id', total - 1)
                where = f"'{self.ann_file}', image {image_id}"
                path = self.image_path(row['image'], where)
                texts = row['captions']
                self.check_texts(texts, where)
                ids = row.get('caption_ids')
                if not ids:
                    ids = range(num_captions, num_captions + len(texts))
                num_captions += len(texts)
                unique: dict[str, Any] = {}
                for text, caption_id in zip(texts, ids, strict=True):
                    if text.strip():
                        unique.setdefault(text, caption_id)
                if not texts or not all(text.strip() for text in texts):
                    empty.append(f'image {image_id}')
                if unique:
                    entry = dict(
                        img_path=path,
                        text=list(unique),
                        image_id=image_id,
                        caption_ids=list(unique.values()),
                    )
                    entries.append(entry)
        self.leave_out(
            'have an empty caption or none',
            empty,
            total,
            samples=total - len(entries),
        )
        return entries

    def get_data_info(self, idx: int) -> dict:
        """Return an entry; in training with false captions, which are drawn here."""
        info = super().get_data_info(idx)
        own = info.pop('own', None)
        if own is not None and self._pool is not None:
            info['text'] = info['text'] + self._draw_negatives(self._pool, own)
        return info

    def _draw_negatives(self, pool: TextPool, own: Sequence[int]) -> list[str]:
        """Draw false captions for an image whose own ones have these numbers."""
        if self.checked_negatives:
            return pool.draw(own, self.num_negatives)
        places = np.random.randint(len(pool.texts), size=self.num_negatives)
        return [pool.text(number) for number in pool.texts[places]]


def _split_captions(images: list[dict], numbers: list[int]) -> list[dict]:
    """Return an entry for each caption.

    Args:
        images (list[dict]): Entries with all captions of an image.
        numbers (list[int]): The number of each caption in the pool, in the same order.

    Returns:
        list[dict]: Each with ``own``, the numbers of all captions of its image.
    """
    entries = []
    start = 0
    for image in images:
        end = start + len(image['text'])
        own = numbers[start:end]
        start = end
        for text, caption_id in zip(image['text'], image['caption_ids'], strict=True):
            entry = dict(image, text=[text], caption_ids=[caption_id], own=own)
            entries.append(entry)
    return entries


@DATASETS.register_module()
class KarpathyRetrieval(CaptionDataset):
    """Flickr30k or COCO with Karpathy's splits (arXiv 1412.2306).

    ``dataset_flickr30k.json`` names images of one folder; ``dataset_coco.json`` names
    the folder of each image too (``train2014``, ``val2014``).

    Args:
        ann_file (str): That JSON file, below ``data_root``.
        split (str or sequence of str): One or more of the file's splits: 'train',
            'val', 'test', and for COCO 'restval', which one trains on as well.
        **kwargs: Passed to :class:`CaptionDataset`. ``test_mode`` is on unless all
            splits are among 'train' and 'restval'.

    Raises:
        UserError: The file is damaged or of another kind, or has no such split.
    """

    def __init__(
        self, ann_file: str, split: str | Sequence[str] = 'train', **kwargs: Any
    ) -> None:
        if isinstance(split, str):
            split = [split]
        self.splits = tuple(split)
        kwargs.setdefault('test_mode', not set(self.splits) <= {'train', 'restval'})
        super().__init__(ann_file=ann_file, **kwargs)

    def load_images(self) -> Iterator[dict]:
        """Yield the images of the splits, in the order of the file."""
        # {"images": [
        #   {"filepath": "val2014" (COCO only), "filename": "391895.jpg", "imgid": 0,
        #    "split": "test", "sentences": [
        #      {"raw": "A man on a bike.", "sentid": 770337}, ...]}]}
        content = read_json(self.ann_file, dict, 'dataset.ann_file')
        known_splits = sorted({image['split'] for image in content['images']})
        for split in self.splits:
            check(f"dataset.split of '{self.ann_file}'", split, choices=known_splits)
        for number, image in enumerate(content['images']):
            if image['split'] not in self.splits:
                continue
            ids = [sentence.get('sentid') for sentence in image['sentences']]
            yield dict(
                image=osp.join(image.get('filepath', ''), image['filename']),
                captions=[sentence['raw'] for sentence in image['sentences']],
                image_id=image.get('imgid', number),
                caption_ids=None if None in ids else ids,
            )


@DATASETS.register_module()
class CaptionFiles(CaptionDataset):
    """Captions of a CSV file with a header, or of JSON lines::

        image,caption
        beach/1.jpg,A dog runs along the beach.
        beach/1.jpg,A brown dog by the sea.

    Columns: ``image`` (below the image folder), and ``caption`` or ``captions`` (in CSV
    with ``|`` between them, in JSON a list). Rows of one image are put together; others
    are not read.

    Args:
        ann_file (str): Ends in .csv, .tsv, .jsonl or .json (JSON lines).
        **kwargs: Passed to :class:`CaptionDataset`.

    Raises:
        UserError: A column is missing or a row is damaged.
    """

    def load_images(self) -> Iterator[dict]:
        """Yield the images in the order of their first rows."""
        captions: dict[str, list[str]] = {}
        for line, row in read_rows(self.ann_file, 'dataset.ann_file'):
            where = f"{line} of '{self.ann_file}'"
            texts = texts_of(row, 'caption', 'captions', where)
            check(f'{where}: caption or captions', texts, kind=list)
            captions.setdefault(row['image'], []).extend(texts or ())
        for image, texts in captions.items():
            yield dict(image=image, captions=texts)
