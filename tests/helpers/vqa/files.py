"""Tiny data sets in the real layouts of VQAv2, Visual Genome, Flickr30k, COCO, CSV and JSONL.

Everything is written from nothing: images of noise, questions and captions of a few
words.
"""

import itertools
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

#: The answers of :func:`write_vqav2`, for a vocabulary.
ANSWERS = ('yes', 'no', '2', 'red', 'blue')
#: A line of text that a retrieval data set has as many of as it needs.
WORDS = 'a small red big blue dog cat runs sits on the grass sea table road'.split()


def write_image(path: Path, seed=0, size=(40, 32), most=255, channels=(3,)) -> Path:
    """Write an image of noise, ``size`` is width and height; without channels, a mask."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(
        0, most, (*size[::-1], *channels), dtype=np.uint8
    )
    Image.fromarray(pixels).save(path)
    return path


def write_json(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def ten(answer: str) -> list[dict]:
    """Ten annotators' answers, eight of them the same."""
    given = [answer] * 8 + ['maybe'] * 2
    return [
        dict(answer=a, answer_confidence='yes', answer_id=i)
        for i, a in enumerate(given, 1)
    ]


def vqa_pair(
    split: str, images: Iterable[int], per_image: int = 2
) -> tuple[dict, dict]:
    """Return the contents of VQAv2's two files of a split."""
    types = {'yes': 'yes/no', 'no': 'yes/no', '2': 'number'}
    questions = []
    annotations = []
    for image, i in itertools.product(images, range(per_image)):
        answer = ANSWERS[(image + i) % len(ANSWERS)]
        ids = dict(question_id=image * 1000 + i, image_id=image)
        questions.append(dict(question=f'What is thing {i} here?', **ids))
        annotation = dict(
            question_type='what is',
            answer_type=types.get(answer, 'other'),
            multiple_choice_answer=answer,
            answers=ten(answer),
            **ids,
        )
        annotations.append(annotation)
    head = dict(
        info=dict(version='2.0', year=2017), data_type='mscoco', data_subtype=split
    )
    asked = dict(head, task_type='Open-Ended', questions=questions)
    return asked, dict(head, annotations=annotations)


def write_vqav2(root: Path, counts: dict[str, int] | None = None) -> Path:
    """Write VQAv2 as :class:`lm4ve.tasks.vqa.VQAv2` expects it.

    Args:
        root (Path): COCO's folder.
        counts (dict, optional): Split -> number of images; default: a few of each.
    """
    counts = counts or {'train2014': 4, 'val2014': 3, 'test-dev2015': 2}
    for number, (split, count) in enumerate(counts.items()):
        images = range(number * 100 + 1, number * 100 + 1 + count)
        folder = 'test2015' if split.startswith('test') else split
        for i in images:
            write_image(root / folder / f'COCO_{folder}_{i:012d}.jpg', seed=i)
        questions, annotations = vqa_pair(split, images)
        files = root / 'vqav2'
        write_json(files / f'v2_OpenEnded_mscoco_{split}_questions.json', questions)
        if not split.startswith('test'):
            write_json(files / f'v2_mscoco_{split}_annotations.json', annotations)
    write_json(root / 'vqav2/vocabulary.json', list(ANSWERS))
    return root


def write_visual_genome(root: Path, count: int = 4) -> Path:
    """Write Visual Genome, its images in two folders."""
    content = []
    for image in range(1, count + 1):
        folder = 'VG_100K' if image % 2 == 0 else 'VG_100K_2'
        write_image(root / folder / f'{image}.jpg', seed=image)
        answer = ANSWERS[image % len(ANSWERS)]
        pair = dict(
            qa_id=986000 + image,
            image_id=image,
            question='What color is it?',
            answer=f'{answer.capitalize()}.',
        )
        content.append(dict(id=image, qas=[pair]))
    write_json(root / 'question_answers.json', content)
    return root


def caption(seed: int, words: int = 5) -> str:
    """Return some words in an order that the seed gives."""
    chosen = np.random.default_rng(seed).choice(WORDS, words)
    return f'{" ".join(chosen)} {seed}.'


def write_karpathy(root: Path, splits: dict[str, int], coco: bool) -> Path:
    """Write COCO or Flickr30k with Karpathy's splits, five captions an image."""
    images = []
    for split, count in splits.items():
        for _ in range(count):
            images.append(_karpathy_image(root, len(images), split, coco))
    name = 'dataset_coco.json' if coco else 'dataset_flickr30k.json'
    write_json(root / name, dict(images=images))
    return root


def _karpathy_image(root: Path, number: int, split: str, coco: bool) -> dict:
    """Write an image; return its entry of the list."""
    ids = list(range(5 * number, 5 * number + 5))
    entry = dict(
        sentids=ids,
        imgid=number,
        split=split,
        sentences=[dict(raw=caption(i), imgid=number, sentid=i) for i in ids],
    )
    if coco:  # 'restval' are images of val2014
        folder = 'train2014' if split == 'train' else 'val2014'
        entry['filename'] = f'COCO_{folder}_{5000 + number:012d}.jpg'
        entry['cocoid'] = 5000 + number
        entry['filepath'] = folder
    else:
        folder = 'flickr30k-images'
        entry['filename'] = f'{1000 + number}.jpg'
    write_image(root / folder / entry['filename'], seed=number)
    return entry


def write_flickr30k(root: Path) -> Path:
    return write_karpathy(root, dict(train=6, val=3, test=3), coco=False)


def write_coco(root: Path) -> Path:
    return write_karpathy(root, dict(train=4, restval=2, val=3, test=3), coco=True)


def write_csv(path: Path, rows: list[dict]) -> Path:
    pd.DataFrame(rows).to_csv(path, index=False, lineterminator='\r\n')
    return path
