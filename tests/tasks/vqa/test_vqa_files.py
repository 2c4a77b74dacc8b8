"""VQAv2, Visual Genome and own files: what is read, and what bad input ends in."""

import json
import logging
import pickle

import pytest

from lm4ve.errors import UserError
from lm4ve.tasks.vqa import VisualGenomeQA, VQAFiles, VQAv2
from tests.tasks.vqa import files


@pytest.fixture
def coco(tmp_path):
    return files.write_vqav2(tmp_path / 'coco')


@pytest.fixture
def log(monkeypatch):
    lines = []

    def record(message, logger=None, level=logging.INFO):
        lines.append(message)

    for module in ('vqa.datasets.vqa', 'base.language.text_entries'):
        monkeypatch.setattr(f'lm4ve.tasks.{module}.print_log', record)
    return lines


def vqav2(root, split='train2014', **kwargs):
    return VQAv2(split=split, data_root=str(root), serialize_data=False, **kwargs)


def question_file(root, split='train2014'):
    return root / f'vqav2/v2_OpenEnded_mscoco_{split}_questions.json'


def annotation_file(root, split='train2014'):
    return root / f'vqav2/v2_mscoco_{split}_annotations.json'


def edit(path, change):
    """Change the content of a JSON file."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


# ---------------------------------------------------------------------- what is read
def test_a_question_has_its_image_ten_answers_and_types(coco):
    data = vqav2(coco)
    assert len(data) == 8 and not data.test_mode
    info = data.get_data_info(1)
    assert info['img_path'] == f'{coco}/train2014/COCO_train2014_000000000001.jpg'
    assert info['text'] == ['What is thing 1 here?']
    assert info['gt_answers'] == ['2'] * 8 + ['maybe'] * 2
    assert (info['question_id'], info['image_id']) == (1001, 1)
    assert (info['question_type'], info['answer_type']) == ('what is', 'number')


def test_annotations_are_found_by_their_id_and_not_by_their_place(coco):
    before = [vqav2(coco).get_data_info(i)['gt_answers'] for i in range(8)]
    edit(annotation_file(coco), lambda c: c['annotations'].reverse())
    assert [vqav2(coco).get_data_info(i)['gt_answers'] for i in range(8)] == before


def test_a_test_has_images_of_the_test_set_and_no_answers(coco):
    data = vqav2(coco, 'test-dev2015')
    assert data.test_mode and len(data) == 4
    info = data.get_data_info(0)
    assert info['img_path'].endswith('/test2015/COCO_test2015_000000000201.jpg')
    assert info['gt_answers'] == [] and 'answer_type' not in info


def test_visual_genome_lies_in_two_folders_and_its_answers_are_normalized(tmp_path):
    root = files.write_visual_genome(tmp_path)
    data = VisualGenomeQA(data_root=str(root), serialize_data=False)
    infos = [data.get_data_info(i) for i in range(4)]
    assert [i['img_path'].removeprefix(str(root)) for i in infos] == [
        *('/VG_100K_2/1.jpg', '/VG_100K/2.jpg', '/VG_100K_2/3.jpg', '/VG_100K/4.jpg')
    ]
    assert infos[0]['gt_answers'] == ['no'] and infos[0]['question_id'] == 986001


ROWS = [
    dict(image='a.png', question='How many?', answers='2|2|3'),
    dict(image='b.png', question='What, where?', answers='a cat'),
]


@pytest.mark.parametrize('kind', ['csv', 'tsv', 'jsonl', 'json'])
def test_own_questions_are_read_from_csv_and_json_lines(kind, tmp_path):
    for name in 'ab':
        files.write_image(tmp_path / f'images/{name}.png')
    path = tmp_path / f'questions.{kind}'
    if kind == 'csv':
        files.write_csv(path, ROWS)
    elif kind == 'tsv':
        lines = [list(ROWS[0])] + [list(r.values()) for r in ROWS]
        path.write_text(''.join('\t'.join(line) + '\n' for line in lines))
    else:
        files.write_jsonl(path, [dict(r, answers=r['answers'].split('|')) for r in ROWS])
    prefix = dict(img_path='images')
    data = VQAFiles(path.name, str(tmp_path), prefix, serialize_data=False)
    first, second = data.get_data_info(0), data.get_data_info(1)
    assert first['img_path'] == f'{tmp_path}/images/a.png'
    assert first['gt_answers'] == ['2', '2', '3'] and first['question_id'] == 0
    assert second['text'] == ['What, where?'] and second['gt_answers'] == ['a cat']


def test_own_questions_keep_their_ids_types_and_may_lack_answers(tmp_path):
    files.write_image(tmp_path / 'a.png')
    row = dict(image='a.png', question='Is it?', question_id='17', answer_type='yes/no')
    files.write_csv(tmp_path / 'q.csv', [row, dict(row, question_id='x-1')])
    data = VQAFiles('q.csv', str(tmp_path), test_mode=True, serialize_data=False)
    info = data.get_data_info(0)
    assert info['gt_answers'] == [] and info['answer_type'] == 'yes/no'
    assert info['question_id'] == 17 and data.get_data_info(1)['question_id'] == 'x-1'


# ------------------------------------------------------------------ what is left out
def test_training_leaves_out_questions_that_the_vocabulary_cannot_answer(coco, log):
    words = ['yes', 'maybe']  # 'maybe' is said by two annotators of each
    assert len(vqav2(coco, vocabulary=words)) == 8
    data = vqav2(coco, vocabulary=['yes', 'red'])
    assert {d['gt_answers'][0] for d in data} == {'yes', 'red'}
    assert f'{8 - len(data)} of 8 questions have no answer among the 2' in log[-1]
    kept = vqav2(coco, vocabulary=['yes'], split='val2014')
    assert len(kept) == 6


def test_empty_questions_are_left_out_of_training_and_kept_in_tests(coco, log):
    for split in ('train2014', 'val2014'):
        edit(question_file(coco, split), lambda c: c['questions'][0].update(question=' '))
    assert len(vqav2(coco)) == 7
    assert '1 of 8 entries have an empty question: question 1000' in log[-1]
    assert len(vqav2(coco, 'val2014')) == 6
    for split in ('train2014', 'val2014'):
        with pytest.raises(UserError, match='empty question'):
            vqav2(coco, split, on_corrupt='refuse')


def test_a_test_leaves_out_the_questions_of_a_corrupt_image_and_reads_it_once(coco, monkeypatch):
    looks = []
    find_defect = VQAv2.find_defect

    def look(self, path, decode=False):
        looks.append(path)
        return find_defect(self, path, decode)

    monkeypatch.setattr(VQAv2, 'find_defect', look)
    broken = coco / 'val2014/COCO_val2014_000000000102.jpg'
    broken.write_bytes(broken.read_bytes()[:300])
    data = vqav2(coco, 'val2014')
    assert len(data) == 4 and data.num_corrupt == 1
    assert len(looks) == len(set(looks)) == 3
    with pytest.raises(UserError, match='1 of 3 images are corrupt'):
        vqav2(coco, 'val2014', on_corrupt='refuse')


# -------------------------------------------------------------------------- bad input
def swap(root):
    question_file(root).write_text(annotation_file(root).read_text())


def other_split(root):
    annotation_file(root).write_text(annotation_file(root, 'val2014').read_text())


def unnamed_other_split(root):
    other_split(root)
    edit(annotation_file(root), lambda c: c.pop('data_subtype'))


def of_annotations(change):
    return lambda root: edit(annotation_file(root), change)


def of_questions(change):
    return lambda root: edit(question_file(root), change)


BAD_FILES = {
    'no list .questions': swap,
    'data_subtype': other_split,
    'without a partner': unnamed_other_split,
    'version': of_annotations(lambda c: c['info'].update(version='1.0')),
    'task_type': of_questions(lambda c: c.update(task_type='Multiple-Choice')),
    'question ids more': of_questions(lambda c: c['questions'].append(c['questions'][0])),
    'ids more than once': of_annotations(lambda c: c['annotations'].append(c['annotations'][0])),
    '.4001.': of_annotations(lambda c: c['annotations'].pop()),
    '4001': of_questions(lambda c: c['questions'].pop()),
    'another image .1000': of_annotations(lambda c: c['annotations'][0].update(image_id=2)),
    'content of': lambda root: question_file(root).write_text('[]'),
    'cannot be read': lambda root: annotation_file(root).write_bytes(pickle.dumps([])),
    'damaged': lambda root: question_file(root).write_text('[' * 100_000),
    'not a text': of_annotations(lambda c: c['annotations'][0]['answers'][3].update(answer=2)),
    'another image': of_questions(lambda c: c['questions'][0].update(image_id='1')),
    'No such file': lambda root: annotation_file(root).unlink(),
    'do not exist': lambda root: [p.unlink() for p in (root / 'train2014').iterdir()],
}


@pytest.mark.parametrize('words', BAD_FILES)
def test_a_bad_file_is_named_before_training(words, coco):
    BAD_FILES[words](coco)
    with pytest.raises(UserError, match=words):
        vqav2(coco)


def test_a_split_that_does_not_exist_is_refused(coco):
    with pytest.raises(UserError, match="split='train' must be one of train2014"):
        vqav2(coco, 'train')


@pytest.mark.parametrize(
    'content',
    ['[{"id": 1}]', '[{"id": 1, "qas": [{"qa_id": 1, "image_id": 1}]}]', '{"images": []}'],
)
def test_another_file_of_visual_genome_is_refused(content, tmp_path):
    root = files.write_visual_genome(tmp_path)
    (root / 'question_answers.json').write_text(content)
    with pytest.raises(UserError, match='question_answers.json'):
        VisualGenomeQA(data_root=str(root))


@pytest.mark.parametrize(
    'name, text',
    [
        ('q.csv', 'picture,question\na.png,What?\n'),
        ('q.csv', 'image,question\na.png,What?,more\n'),
        ('q.csv', 'image,question\na.png\n'),
        ('q.csv', 'image,question\na.png,"What?\n'),
        ('q.csv', 'image,question\n../b.png,What?\n'),
        ('q.csv', 'image,question\n/etc/b.png,What?\n'),
        ('q.csv', 'image,question\na.png,\n'),
        ('q.csv', 'question_id,image,question\n1,a.png,A?\n1,a.png,B?\n'),
        ('q.csv', 'image,question,answer\na.png,What?,a d'),
        ('q.csv', 'image,question,question\na.png,What?,Who?\n'),
        ('q.csv', ''),
        ('q.jsonl', '{"image": "a.png", "question": "What?"}\n{"image"'),
        ('q.jsonl', '["a.png", "What?"]\n'),
        ('q.jsonl', '{"image": "a.png", "question": 3}\n'),
        ('q.jsonl', '{"image": 3, "question": "What?"}\n'),
        ('q.jsonl', '{"image": "a.png", "question": "What?", "answers": [2]}\n'),
        ('q.jsonl', '{"image": "a.png", "question": "What?", "image_id": [2]}'),
        ('q.jsonl', '{"image": "a.png", "question": "\\ud800?"}\n'),
        ('q.jsonl', '{"image": "http://localhost:9/a.png", "question": "x"}\n'),
        ('q.jsonl', f'{{"image": "a.png", "question": {"[" * 2000}'),
        ('q.txt', 'a.png What?\n'),
    ],
)
def test_a_bad_row_of_own_questions_names_the_file(name, text, tmp_path):
    files.write_image(tmp_path / 'a.png')
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=name):
        VQAFiles(name, str(tmp_path))


def test_json_lines_end_at_line_feeds_only(tmp_path):
    files.write_image(tmp_path / 'a.png')
    row = dict(image='a.png', question='One\u2028two\x85three?', answer='x')
    (tmp_path / 'q.jsonl').write_text(json.dumps(row, ensure_ascii=False) + '\n', 'utf-8')
    (entry,) = VQAFiles('q.jsonl', str(tmp_path), serialize_data=False)
    assert entry['text'] == [row['question']]
