"""VQAv2, Visual Genome and own files: what is read, and what bad input ends in."""

import json
import pickle

import pytest

from lm4ve.errors import UserError
from lm4ve.tasks.vqa import VisualGenomeQA, VQAFiles, VQAv2
from tests.tasks.vqa import files


@pytest.fixture
def coco(tmp_path):
    return files.write_vqav2(tmp_path / 'coco')


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


def test_visual_genome_answers_are_normalized(tmp_path):
    root = files.write_visual_genome(tmp_path)
    data = VisualGenomeQA(data_root=str(root), serialize_data=False)
    infos = [data.get_data_info(i) for i in range(4)]
    assert [i['img_path'].removeprefix(str(root)) for i in infos] == [
        *('/VG_100K_2/1.jpg', '/VG_100K/2.jpg', '/VG_100K_2/3.jpg', '/VG_100K/4.jpg')
    ]
    assert infos[0]['gt_answers'] == ['no'] and infos[0]['question_id'] == 986001


def test_own_questions_keep_ids_and_types(tmp_path):
    files.write_image(tmp_path / 'a.png')
    row = dict(image='a.png', question='Is it?', question_id='17', answer_type='yes/no')
    files.write_csv(tmp_path / 'q.csv', [row, dict(row, question_id='x-1')])
    data = VQAFiles('q.csv', str(tmp_path), test_mode=True, serialize_data=False)
    info = data.get_data_info(0)
    assert info['gt_answers'] == [] and info['answer_type'] == 'yes/no'
    assert info['question_id'] == 17 and data.get_data_info(1)['question_id'] == 'x-1'


def test_questions_of_corrupt_images_are_left_out(coco, monkeypatch):
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


@pytest.mark.parametrize(
    'content',
    ['[{"id": 1}]', '[{"id": 1, "qas": [{"qa_id": 1, "image_id": 1}]}]', '{"images": []}'],
)
def test_other_files_of_visual_genome_are_refused(content, tmp_path):
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
def test_bad_row_names_the_file(name, text, tmp_path):
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


def test_question_has_image_answers_and_types(coco):
    edit(annotation_file(coco), lambda c: c['annotations'].reverse())  # found by their ids
    data = vqav2(coco)
    assert len(data) == 8 and not data.test_mode
    info = data.get_data_info(1)
    assert info['img_path'] == f'{coco}/train2014/COCO_train2014_000000000001.jpg'
    assert info['text'] == ['What is thing 1 here?']
    assert info['gt_answers'] == ['2'] * 8 + ['maybe'] * 2
    assert (info['question_id'], info['image_id']) == (1001, 1)
    assert (info['question_type'], info['answer_type']) == ('what is', 'number')
    data = vqav2(coco, 'test-dev2015')
    assert data.test_mode and len(data) == 4
    info = data.get_data_info(0)
    assert info['img_path'].endswith('/test2015/COCO_test2015_000000000201.jpg')
    assert info['gt_answers'] == [] and 'answer_type' not in info


#: The same questions in each format.
OWN = dict(
    csv='image,question,answers\na.png,How many?,2|2|3\nb.png,"What, where?",a cat\n',
    tsv='image\tquestion\tanswers\na.png\tHow many?\t2|2|3\nb.png\tWhat, where?\ta cat\n',
    jsonl='{"image": "a.png", "question": "How many?", "answers": ["2", "2", "3"]}\n'
    '{"image": "b.png", "question": "What, where?", "answer": "a cat"}\n',
)


@pytest.mark.parametrize('kind', OWN)
def test_own_questions_are_read(kind, tmp_path):
    for name in 'ab':
        files.write_image(tmp_path / f'images/{name}.png')
    (tmp_path / f'q.{kind}').write_text(OWN[kind])
    data = VQAFiles(f'q.{kind}', str(tmp_path), dict(img_path='images'), serialize_data=False)
    first, second = data.get_data_info(0), data.get_data_info(1)
    assert first['img_path'] == f'{tmp_path}/images/a.png'
    assert first['gt_answers'] == ['2', '2', '3'] and first['question_id'] == 0
    assert second['text'] == ['What, where?'] and second['gt_answers'] == ['a cat']


def test_unanswerable_questions_are_left_out_of_training(coco):
    assert len(vqav2(coco, vocabulary=['yes', 'maybe'])) == 8  # two annotators said 'maybe'
    assert {d['gt_answers'][0] for d in vqav2(coco, vocabulary=['yes', 'red'])} == {'yes', 'red'}
    assert len(vqav2(coco, 'val2014', vocabulary=['yes'])) == 6


@pytest.mark.parametrize('split, count', [('train2014', 7), ('val2014', 6)])
def test_empty_questions_are_kept_in_tests_only(split, count, coco):
    edit(question_file(coco, split), lambda c: c['questions'][0].update(question=' '))
    assert len(vqav2(coco, split)) == count
    with pytest.raises(UserError):
        vqav2(coco, split, on_corrupt='refuse')


def of_another_split(root):
    annotation_file(root).write_text(annotation_file(root, 'val2014').read_text())
    edit(annotation_file(root), lambda c: c.pop('data_subtype'))


#: Wrong contents: changes of the questions, of the annotations, and of whole files.
QUESTIONS = (
    lambda c: c.update(task_type='Multiple-Choice'),
    lambda c: c.update(data_subtype='val2014'),
    lambda c: c['questions'].append(c['questions'][0]),
    lambda c: c['questions'].pop(),
    lambda c: c['questions'][0].update(image_id='1'),
)
ANNOTATIONS = (
    lambda c: c['info'].update(version='1.0'),
    lambda c: c['annotations'].append(c['annotations'][0]),
    lambda c: c['annotations'].pop(),
    lambda c: c['annotations'][0].update(image_id=2),
    lambda c: c['annotations'][0]['answers'][3].update(answer=2),
)
BAD_FILES = (
    *((lambda root, change=change: edit(question_file(root), change)) for change in QUESTIONS),
    *((lambda root, change=change: edit(annotation_file(root), change)) for change in ANNOTATIONS),
    of_another_split,
    lambda root: question_file(root).write_text('[]'),
    lambda root: annotation_file(root).write_bytes(pickle.dumps([])),
    lambda root: question_file(root).write_text('[' * 100_000),
    lambda root: annotation_file(root).unlink(),
    lambda root: [p.unlink() for p in (root / 'train2014').iterdir()],
)


@pytest.mark.parametrize('number', range(len(BAD_FILES)))
def test_bad_file_is_named_before_training(number, coco):
    BAD_FILES[number](coco)
    with pytest.raises(UserError, match='vqav2|train2014'):
        vqav2(coco)
