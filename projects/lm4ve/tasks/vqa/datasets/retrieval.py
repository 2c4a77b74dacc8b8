"""Data sets of images with captions: Karpathy's splits of Flickr30k and COCO, and own files."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from lm4ve.errors import UserError, listing
from lm4ve.registry import DATASETS
from lm4ve.tasks.base.language.json_files import read_entries, read_json, read_rows, texts_of
from lm4ve.tasks.vqa.datasets.image_text import ImageTextDataset
from lm4ve.tasks.vqa.datasets.text_pool import TextPool


class CaptionDataset(ImageTextDataset):
    """Images with captions. A subclass says what its files hold.

    Equal captions of one image count once, as in METER. In training an entry is one
    caption with its image: ``text`` is that caption and ``num_negatives`` false ones,
    drawn anew each time. In a test an entry is an image with all of its captions.

    Args:
        *args: Passed to :class:`lm4ve.tasks.vqa.ImageTextDataset`.
        num_negatives (int): How many false captions are drawn in training.
        checked_negatives (bool): No false caption is one of the image's own captions, nor
            has the text of one, and all of them differ. False draws as METER's release
            does, any caption of the data set.
        **kwargs: Passed on as well.

    An entry has ``img_path``, ``text``, ``image_id`` and ``caption_ids``.

    Raises:
        UserError: Files are missing, damaged or of another kind; an image lies outside
            of its folder; nothing is left; there are too few captions to draw from.
    """

    def __init__(
        self, *args: Any, num_negatives: int = 15, checked_negatives: bool = True, **kwargs: Any
    ) -> None:
        if not isinstance(num_negatives, int) or num_negatives < 0:
            raise UserError(f'dataset.num_negatives={num_negatives!r} must be 0 or more.')
        self.num_negatives, self.checked_negatives = num_negatives, checked_negatives
        self._pool: TextPool | None = None
        super().__init__(*args, **kwargs)

    def load_images(self) -> Iterable[dict]:
        """Yield one dict an image.

        Its entries: ``image`` (str, below the image folder), ``captions`` (list[str]),
        and if they are known ``image_id`` and ``caption_ids`` (one a caption).
        """
        raise NotImplementedError

    def load_data_list(self) -> list[dict]:
        """Return the images, or in training the captions, of the files, checked."""
        self.check_image_folder()
        images, empty, total, captions = [], [], 0, 0
        for number, found in enumerate(self.load_images()):
            total += 1
            image_id = found.get('image_id', number)
            where = f"'{self.ann_file}', image {image_id}"
            path = self.image_path(found['image'], where)
            texts = [c.strip() for c in found['captions']]
            self.check_texts(texts, where)
            ids = found.get('caption_ids') or range(captions, captions + len(texts))
            captions += len(texts)
            unique: dict[str, Any] = {}
            for text, caption_id in zip(texts, ids, strict=True):
                if text:
                    unique.setdefault(text, caption_id)
            if '' in texts or not texts:
                empty.append(f'image {image_id}')
            if unique:
                images.append(
                    dict(
                        img_path=path,
                        text=list(unique),
                        image_id=image_id,
                        caption_ids=list(unique.values()),
                    )
                )
        self.leave_out('have an empty caption or none', empty, total)
        self.refuse_nothing(images)
        self.check_some_images([d['img_path'] for d in images])
        return images if self.test_mode else list(self._captions(images))

    def _captions(self, images: list[dict]) -> Iterator[dict]:
        """Yield the entries of a training; their captions become the pool of false ones."""
        texts = [c for d in images for c in d['text']]
        numbers = [i for i, d in enumerate(images) for _ in d['text']]
        self._pool = TextPool(texts, numbers)
        most = self._pool.distinct - self._pool.most_of_one_image()
        if self.checked_negatives and self.num_negatives > most:
            raise UserError(
                f'dataset.num_negatives={self.num_negatives}: {type(self).__name__} has '
                f'{self._pool.distinct} different captions of {len(images)} images, so that there '
                f'are only {most} false ones for some images. Fix: set at most as many.'
            )
        for number, d in enumerate(images):
            for text, caption_id in zip(d['text'], d['caption_ids'], strict=True):
                yield dict(d, text=[text], caption_ids=[caption_id], image_number=number)

    def get_data_info(self, idx: int) -> dict:
        """Return an entry; in training with false captions, which are drawn here."""
        info = super().get_data_info(idx)
        number = info.pop('image_number', None)
        if number is not None and self._pool is not None:
            false = self._pool.draw(number, self.num_negatives, self.checked_negatives)
            info['text'] = [*info['text'], *false]
        return info


@DATASETS.register_module()
class KarpathyRetrieval(CaptionDataset):
    """Flickr30k or COCO with Karpathy's splits (arXiv 1412.2306).

    ``dataset_flickr30k.json`` names images of one folder; ``dataset_coco.json`` names the
    folder of each image too (``train2014``, ``val2014``).

    Args:
        ann_file (str): That JSON file, below ``data_root``.
        split (str or sequence of str): One or more of the file's splits: 'train', 'val',
            'test', and for COCO 'restval', which one trains on as well.
        **kwargs: Passed to :class:`CaptionDataset`. ``test_mode`` is on unless all splits
            are among 'train' and 'restval'.

    Raises:
        UserError: The file is damaged or of another kind, or has no such split.
    """

    def __init__(self, ann_file: str, split: str | Sequence[str] = 'train', **kwargs: Any) -> None:
        self.splits = (split,) if isinstance(split, str) else tuple(split)
        kwargs.setdefault('test_mode', not set(self.splits) <= {'train', 'restval'})
        super().__init__(ann_file=ann_file, **kwargs)

    def load_images(self) -> Iterator[dict]:
        """Yield the images of the splits, in the order of the file."""
        entries = read_karpathy(self.ann_file)
        there = dict.fromkeys(e['split'] for e in entries)
        missing = [s for s in self.splits if s not in there]
        if missing or not self.splits:
            raise UserError(
                f"dataset.split: '{self.ann_file}' has no split {listing(missing)}, only "
                f'{listing(list(there))}. Fix: name some of these.'
            )
        yield from (e for e in entries if e['split'] in self.splits)


def read_karpathy(path: str) -> list[dict]:
    """Read ``dataset_flickr30k.json`` or ``dataset_coco.json``.

    Args:
        path (str): The file.

    Returns:
        list[dict]: For each image ``image`` (its name, with the folder if the file has
        it), ``split``, ``captions`` (list[str]), ``image_id`` and ``caption_ids`` (int).

    Raises:
        UserError: It is damaged or of another kind.
    """
    field = 'dataset.ann_file'
    content = read_json(path, dict, field)
    found = []
    for number, image in enumerate(read_entries(content, 'images', path, field)):
        name, folder = image.get('filename'), image.get('filepath', '')
        split, sentences = image.get('split'), image.get('sentences')
        captions = [
            (s['raw'], s.get('sentid', -1))
            for s in (sentences if isinstance(sentences, list) else ())
            if isinstance(s, dict) and isinstance(s.get('raw'), str)
        ]
        ids = [image.get('imgid', number), *(i for _, i in captions)]
        if (
            not all(isinstance(v, str) for v in (name, folder, split))
            or not isinstance(sentences, list)
            or len(captions) < len(sentences)
            or not all(type(i) is int for i in ids)
        ):
            raise UserError(
                f"{field}: image {number} of '{path}' is none of Karpathy's splits: expected "
                'filename, split and sentences (a list of objects with raw, a text), and in '
                "COCO's file filepath. Fix: name dataset_flickr30k.json or dataset_coco.json."
            )
        found.append(
            dict(
                image=f'{folder}/{name}' if folder else name,
                split=split,
                captions=[raw for raw, _ in captions],
                image_id=ids[0],
                caption_ids=ids[1:] if -1 not in ids else None,
            )
        )
    return found


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
        for where, row in read_rows(self.ann_file, 'dataset.ann_file'):
            place = f"dataset.ann_file: {where} of '{self.ann_file}'"
            texts = texts_of(row, 'caption', 'captions', place)
            if texts is None or not isinstance(row.get('image'), str):
                raise UserError(
                    f'{place} has {listing(list(row)) or "nothing"}; expected image, and caption '
                    'or captions. Fix: name the columns so.'
                )
            captions.setdefault(row['image'], []).extend(texts)
        yield from (dict(image=image, captions=texts) for image, texts in captions.items())
