"""Questions and captions, for ``fuzz.py`` to damage."""

import json
import random
from functools import partial
from pathlib import Path

import numpy as np
from fuzz_readers import LINES_WITHOUT_COUNT, READERS, Made

for _name in ('vqa-csv', 'vqa-jsonl', 'captions-csv', 'captions-jsonl'):
    LINES_WITHOUT_COUNT[_name] = 'a table is one sample a line, without a count'
_VQA_HEAD = dict(data_subtype='train2014', data_type='mscoco', info=dict(version='2.0'))
_VQA_IDS = [dict(question_id=10 * i + 1, image_id=i) for i in range(1, 4)]
_VQA_QUESTIONS = dict(
    _VQA_HEAD,
    task_type='Open-Ended',
    questions=[dict(ids, question='Is it red?') for ids in _VQA_IDS],
)
_VQA_ANNOTATIONS = dict(
    _VQA_HEAD,
    annotations=[
        dict(
            ids,
            question_type='is it',
            answer_type='yes/no',
            multiple_choice_answer='yes',
            answers=[
                dict(answer=a, answer_confidence='yes', answer_id=i)
                for i, a in enumerate(['yes', 'no'])
            ],
        )
        for ids in _VQA_IDS
    ],
)
_KARPATHY = dict(
    dataset='coco',
    images=[
        dict(
            filepath='val2014',
            filename=f'{i}.png',
            split='train',
            imgid=i,
            sentids=[2 * i, 2 * i + 1],
            sentences=[dict(raw=f'A cat {i}.', sentid=2 * i), dict(raw='A dog.', sentid=2 * i + 1)],
        )
        for i in range(3)
    ],
)
_GENOME = [
    dict(id=i, qas=[dict(qa_id=i, image_id=i, question='What is it?', answer='A cat.')])
    for i in range(3)
]
_ROWS = [(f'{i}.png', f'What, where is {i}?', 'a cat|a dog') for i in range(4)]


def _vision_language(folder: Path, kind: str, file: str, content: str) -> Made:
    """Write a file of a data set beside the others of it; the images are empty files."""
    from lm4ve.tasks import vision_language as tasks
    from lm4ve.tasks.vqa.answers import read_vocabulary

    questions = folder / 'vqav2/v2_OpenEnded_mscoco_train2014_questions.json'
    questions.parent.mkdir()
    questions.write_text(json.dumps(_VQA_QUESTIONS))
    annotations = folder / 'vqav2/v2_mscoco_train2014_annotations.json'
    annotations.write_text(json.dumps(_VQA_ANNOTATIONS))
    images = *(f'train2014/COCO_train2014_{i:012d}.jpg' for i in range(4)), 'VG_100K/1.jpg'
    for image in (*images, *(f'{i}.png' for i in range(4)), 'val2014/1.png'):
        (folder / image).parent.mkdir(exist_ok=True)
        (folder / image).touch()
    path = folder / file
    path.write_text(content)
    how = dict(data_root=str(folder), verify=False, serialize_data=False)
    draw = dict(how, test_mode=False, num_negatives=1)
    read = dict(
        VQAv2=partial(tasks.VQAv2, 'train2014', **how),
        VQAFiles=partial(tasks.VQAFiles, file, **how),
        VisualGenomeQA=partial(tasks.VisualGenomeQA, **how),
        KarpathyRetrieval=partial(tasks.KarpathyRetrieval, file, **draw),
        CaptionFiles=partial(tasks.CaptionFiles, file, **draw),
        vocabulary=partial(read_vocabulary, path),
    )[kind]

    def read_all() -> object:
        data = read()
        if kind == 'vocabulary':
            return data
        random.seed(0)
        np.random.seed(0)
        return [data.get_data_info(i) for i in range(len(data))]

    return path, read_all


def _csv(header: str) -> str:
    lines = [header, *(f'{image},"{text}",{answers}' for image, text, answers in _ROWS)]
    return ''.join(f'{line}\n' for line in lines)


def _lines_of(*names: str) -> str:
    return ''.join(f'{json.dumps(dict(zip(names, row, strict=True)))}\n' for row in _ROWS)


for _name, _kind, _file, _content in (
    ('vqa-questions', 'VQAv2', 'vqav2/v2_OpenEnded_mscoco_train2014_questions.json', None),
    ('vqa-annotations', 'VQAv2', 'vqav2/v2_mscoco_train2014_annotations.json', None),
    ('vqa-csv', 'VQAFiles', 'q.csv', _csv('image,question,answers')),
    ('vqa-jsonl', 'VQAFiles', 'q.jsonl', _lines_of('image', 'question', 'answer')),
    ('visual-genome', 'VisualGenomeQA', 'question_answers.json', json.dumps(_GENOME)),
    ('karpathy', 'KarpathyRetrieval', 'dataset_coco.json', json.dumps(_KARPATHY)),
    ('captions-csv', 'CaptionFiles', 'c.csv', _csv('image,caption,other')),
    ('captions-jsonl', 'CaptionFiles', 'c.jsonl', _lines_of('image', 'caption', 'other')),
    ('vocabulary', 'vocabulary', 'v.json', json.dumps(['yes', 'no', '2', "it's"])),
):
    if _content is None:
        _whole = _VQA_QUESTIONS if 'questions' in _name else _VQA_ANNOTATIONS
        _content = json.dumps(_whole)
    READERS[_name] = partial(_vision_language, kind=_kind, file=_file, content=_content)
