"""What is wrong with files of SQA3D and ScanNet is one message, or a question less."""

import json
import shutil

import numpy as np
import pytest

from lm4ve.errors import UserError
from lm4ve.tasks.rooms import SQA3DDataset
from lm4ve.tasks.rooms.datasets.scene_files import read_scene
from tests.tasks.rooms.scenes import entries, official, write_sqa3d

FIRST, SECOND = 'scene0000_00', 'scene0001_00'
LIST = 'qa/SQA_train.json'
QUESTIONS, ANNOTATIONS = (
    f'qa/v1_balanced_{name}_train_scannetv2.json' for name in ('questions', 'sqa_annotations')
)


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    return write_sqa3d(tmp_path_factory.mktemp('scannet'))


@pytest.fixture
def root(whole, tmp_path):
    read_scene.cache_clear()
    return shutil.copytree(whole, tmp_path / 'scannet')


@pytest.fixture
def lines(monkeypatch):
    found = []
    for module in ('lm4ve.tasks.base.integrity', 'lm4ve.tasks.base.language.text_entries'):
        monkeypatch.setattr(f'{module}.print_log', lambda message, **_: found.append(message))
    return found


def dataset(root, stored=False, **changes):
    first = dict(type='lm4ve.LoadObjects' if stored else 'lm4ve.LoadScene')
    changes.setdefault('pipeline', [first, dict(type='lm4ve.PackScene')])
    return SQA3DDataset(changes.pop('split', 'train'), str(root), **changes)


def array(root, end, scene=FIRST):
    return root / 'scannet_data' / f'{scene}_{end}.npy'


def change(end, edit):
    """Return what writes an edited array in an array's place."""
    return lambda root: np.save(array(root, end), edit(np.load(array(root, end)).copy()))


def cut(end):
    def write(root):
        path = array(root, end)
        path.write_bytes(path.read_bytes()[:-7])

    return write


def longer(root):
    path = array(root, 'aligned_vert')
    path.write_bytes(path.read_bytes() + b'x')


def pickled(root):
    np.save(array(root, 'aligned_vert'), np.array([[{}] * 6], dtype=object), allow_pickle=True)


def with_nan(points):
    points[3, 1] = np.nan
    return points


def larger_id(labels):
    labels[:] = 2**31
    return labels


def smaller_box(boxes):
    boxes[0, 4] *= -1
    return boxes


def alignment(text):
    return lambda root: (root / f'scans/{FIRST}/{FIRST}.txt').write_text(text)


EYE = '1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1'
DAMAGES = {
    'cut points': cut('aligned_vert'),
    'cut labels': cut('ins_label'),
    'more bytes': longer,
    'a pickle': pickled,
    'nan': change('aligned_vert', with_nan),
    'columns': change('vert', lambda x: x[:, :5]),
    'no points': change('vert', lambda x: x[:0]),
    'other points': change('vert', lambda x: x[:50]),
    'moved points': change('vert', lambda x: x + 1),
    'fewer labels': change('sem_label', lambda x: x[:9]),
    'text labels': change('sem_label', lambda x: x.astype(str)),
    'large labels': change('ins_label', larger_id),
    'no classes': change('aligned_bbox', lambda x: x[:, :6]),
    'small box': change('aligned_bbox', smaller_box),
    'short matrix': alignment('axisAlignment = 1 0 0\n'),
    'no numbers': alignment('axisAlignment = a b c\n'),
    'no rotation': alignment(f'axisAlignment = {EYE.replace("1", "2", 1)}\n'),
    'another scan': alignment(f'axisAlignment = {EYE}\n'),
}


@pytest.mark.parametrize('kind', DAMAGES)
def test_damaged_scene_is_refused_or_left_out(kind, root, lines):
    DAMAGES[kind](root)
    data = dataset(root, on_corrupt='refuse')
    with pytest.raises(UserError, match=FIRST):
        data[0]
    data = dataset(root, max_refetch=200)
    assert {data[i]['data_samples'].scene_id for i in range(6)} == {SECOND}
    assert data.num_corrupt == 1 and sum('another sample' in x for x in lines) == 1
    lines.clear()
    tested = dataset(root, test_mode=True)
    assert {tested[i]['data_samples'].scene_id for i in range(len(tested))} == {SECOND}
    assert sum('1 of 2 scenes are corrupt' in line for line in lines) == 1


@pytest.mark.parametrize('end', ['vert', 'aligned_vert', 'ins_label', 'aligned_bbox', None])
def test_questions_about_missing_scenes_are_counted(end, root, lines):
    file = array(root, end) if end else root / f'scans/{FIRST}/{FIRST}.txt'
    file.unlink()
    assert len(dataset(root)) == 3
    (line,) = [x for x in lines if 'lack files' in x]
    assert '3 of 6 entries are about scenes that lack files' in line and file.name in line
    with pytest.raises(UserError, match=file.name):
        dataset(root, on_corrupt='refuse')
    if end == 'ins_label':
        pipeline = [dict(type='lm4ve.LoadScene', annotations=False), dict(type='lm4ve.PackScene')]
        assert len(dataset(root, pipeline=pipeline)) == 6


def test_a_data_set_without_its_scenes_is_refused_before_training(root):
    shutil.rmtree(root / 'scannet_data')
    with pytest.raises(UserError, match='all scenes are missing'):
        dataset(root)


@pytest.mark.parametrize(
    'edit', [lambda x: x[:0], lambda x: x[0], lambda x: x * np.inf, lambda x: x.astype(object)]
)
def test_invalid_stored_objects_are_refused(edit, root):
    path = root / f'objects/{FIRST}.npy'
    np.save(path, edit(np.load(path)), allow_pickle=True)
    with pytest.raises(UserError, match=FIRST):
        dataset(root, stored=True, on_corrupt='refuse')[0]


def test_an_archive_of_objects_has_one_array(root):
    path = root / f'objects/{FIRST}.npy'
    objects = np.load(path)
    path.unlink()
    assert len(dataset(root, stored=True)) == 3
    np.savez(path.with_suffix('.npz'), objects, objects)
    with pytest.raises(UserError, match=FIRST):
        dataset(root, stored=True, on_corrupt='refuse')[0]


def edited(edit, listed=True):
    """Return what edits the first question, in the one file or in the two official ones."""

    def write(root):
        content = entries([FIRST, SECOND])
        if listed:
            edit(content[0])
            (root / LIST).write_text(json.dumps(content))
        else:
            questions, annotations = official(content)
            edit(questions['questions'][0], annotations['annotations'][0])
            (root / QUESTIONS).write_text(json.dumps(questions))
            (root / ANNOTATIONS).write_text(json.dumps(annotations))

    return write


def rotated(rotation):
    return edited(lambda q, a: a.update(rotation=rotation), listed=False)


def posed(*numbers):
    return edited(lambda e: e.update(position=list(numbers)))


def w_first(root):
    content = entries([FIRST, SECOND])
    for e in content:
        *place, x, y, z, w = e['position']
        e['position'] = [*place, w, x, y, z]
    (root / LIST).write_text(json.dumps(content))


@pytest.mark.parametrize(
    'damage',
    [
        rotated(dict(x=0, y=0, z=0, w=1)),
        rotated(dict(_x=0, _y=0, _z=0)),
        rotated(dict(_x=0, _y=0, _z=0, _w=0)),
        edited(lambda q, a: a.update(position=[0, 0, 0]), False),
        edited(lambda q, a: a.update(scene_id='s'), False),
        edited(lambda q, a: a.update(question_id=7), False),
        edited(lambda q, a: a.update(answers=[dict()]), False),
        edited(lambda q, a: q.update(situation=3), False),
        edited(lambda e: e.update(question_id=220602000001)),
        edited(lambda e: e.update(scene_id='../scene')),
        edited(lambda e: e.update(question='\ud800')),
        posed(0, 0, 0, 0, 0, 1),
        posed(0, 0, float('inf'), 0, 0, 0, 1),
        posed(0, 0, 0, 0, 0, 0, 0),
        w_first,
        lambda r: (r / LIST).write_text((r / LIST).read_text()[:90]),
        lambda r: (r / LIST).write_text('[1]'),
        lambda r: (r / LIST).write_text('[]'),
        lambda r: (r / LIST).write_text((r / ANNOTATIONS).read_text()),
        lambda r: (r / LIST).write_bytes(b'\x80\x04.'),
        lambda r: (r / LIST).unlink(),
    ],
    ids=range(21),
)
def test_damaged_questions_are_refused_before_training(damage, root):
    before = (root / LIST).read_bytes()
    damage(root)
    official = (root / LIST).is_file() and (root / LIST).read_bytes() == before
    files = dict(ann_file=ANNOTATIONS, question_file=QUESTIONS) if official else {}
    with pytest.raises(UserError):
        dataset(root, **files)


def test_questions_with_an_empty_text_are_left_out(root, lines):
    for name in ('question', 'situation'):
        edited(lambda e, name=name: e.update({name: ' '}))(root)
        assert len(dataset(root)) == 5
        (line,) = lines
        assert '1 of 6 entries have an empty situation or question' in line
        with pytest.raises(UserError, match="on_corrupt='skip'"):
            dataset(root, on_corrupt='refuse')
        lines.clear()


@pytest.mark.parametrize(
    'changes',
    [
        dict(split='validation'),
        dict(data_prefix=dict(image='x')),
        dict(answers=[]),
        dict(answers=['nothing']),
    ],
)
def test_wrong_arguments_are_refused(changes, root):
    with pytest.raises(UserError):
        dataset(root, **changes)


def test_points_without_normals_are_read_without(root):
    for end in ('vert', 'aligned_vert'):
        np.save(array(root, end), np.load(array(root, end))[:, :6])
    data = dataset(root, on_corrupt='refuse', pipeline=[dict(type='lm4ve.LoadScene', normals=True)])
    with pytest.raises(UserError, match='normals'):
        data[0]
    assert dataset(root)[0]['inputs']['points'].shape == (60, 7)
