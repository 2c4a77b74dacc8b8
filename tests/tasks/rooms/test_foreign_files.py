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


def cut(end, kept=-7):
    """Return what cuts an array's file, or makes it longer."""

    def write(root):
        path = array(root, end)
        path.write_bytes((path.read_bytes() + b'x' * max(kept, 0))[: kept if kept < 0 else None])

    return write


def alignment(text):
    return lambda root: (root / f'scans/{FIRST}/{FIRST}.txt').write_text(text)


EYE = '1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1'
DAMAGES = {
    'cut points': cut('aligned_vert'),
    'cut labels': cut('ins_label'),
    'more bytes': cut('aligned_vert', 1),
    'a pickle': change('aligned_vert', lambda x: x.astype(object)),
    'nan': change('aligned_vert', lambda x: np.where(np.arange(9) == 1, np.nan, x)),
    'columns': change('vert', lambda x: x[:, :5]),
    'no points': change('vert', lambda x: x[:0]),
    'other points': change('vert', lambda x: x[:50]),
    'moved points': change('vert', lambda x: x + 1),
    'fewer labels': change('sem_label', lambda x: x[:9]),
    'text labels': change('sem_label', lambda x: x.astype(str)),
    'large labels': change('ins_label', lambda x: x + np.uint32(2**31)),
    'no classes': change('aligned_bbox', lambda x: x[:, :6]),
    'small box': change('aligned_bbox', lambda x: x * [1, 1, 1, 1, -1, 1, 1, 1]),
    'short matrix': alignment('axisAlignment = 1 0 0\n'),
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


def edited(edit):
    """Return what edits the first question of the list."""

    def write(root):
        content = entries([FIRST, SECOND])
        edit(content[0])
        (root / LIST).write_text(json.dumps(content))
        return dict(ann_file=LIST)

    return write


def official_edited(edit):
    """Return what edits the first question and annotation of the official files."""

    def write(root):
        questions, annotations = official(entries([FIRST, SECOND]))
        edit(questions['questions'][0], annotations['annotations'][0])
        (root / QUESTIONS).write_text(json.dumps(questions))
        (root / ANNOTATIONS).write_text(json.dumps(annotations))
        return dict(ann_file=ANNOTATIONS, question_file=QUESTIONS)

    return write


def w_first(root):
    content = entries([FIRST, SECOND])
    for e in content:
        *place, x, y, z, w = e['position']
        e['position'] = [*place, w, x, y, z]
    (root / LIST).write_text(json.dumps(content))
    return {}


@pytest.mark.parametrize(
    'damage',
    [
        official_edited(lambda q, a: a.update(rotation=dict(_x=0, _y=0, _z=0))),
        official_edited(lambda q, a: a.update(position=[0, 0, 0])),
        official_edited(lambda q, a: a.update(scene_id='s')),
        official_edited(lambda q, a: a.update(question_id=7)),
        official_edited(lambda q, a: a.update(answers=[dict()])),
        official_edited(lambda q, a: q.update(situation=3)),
        edited(lambda e: e.update(question_id=220602000001)),
        edited(lambda e: e.update(scene_id='../scene')),
        edited(lambda e: e.update(question='\ud800')),
        edited(lambda e: e.update(answers='text')),
        *(
            edited(lambda e, p=p: e.update(position=p))
            for p in ([0, 0, 0, 0, 0, 1], [0, 0, float('inf'), 0, 0, 0, 1], [0] * 7)
        ),
        w_first,
        lambda r: (r / LIST).write_text((r / LIST).read_text()[:90]) and {},
        lambda r: (r / LIST).write_text('[]') and {},
        lambda r: (r / LIST).write_text((r / ANNOTATIONS).read_text()) and {},
        lambda r: (r / LIST).write_bytes(b'\x80\x04.') and {},
        lambda r: (r / LIST).unlink() or {},
    ],
    ids=range(19),
)
def test_damaged_questions_are_refused_before_training(damage, root):
    with pytest.raises(UserError):
        dataset(root, **damage(root))


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
        dict(no_scenes=True),
    ],
)
def test_wrong_arguments_are_refused(changes, root):
    if changes.pop('no_scenes', False):
        shutil.rmtree(root / 'scannet_data')
    with pytest.raises(UserError):
        dataset(root, **changes)


def test_points_without_normals_are_read_without(root):
    for end in ('vert', 'aligned_vert'):
        np.save(array(root, end), np.load(array(root, end))[:, :6])
    data = dataset(root, on_corrupt='refuse', pipeline=[dict(type='lm4ve.LoadScene', normals=True)])
    with pytest.raises(UserError, match='normals'):
        data[0]
    assert dataset(root)[0]['inputs']['points'].shape == (60, 7)
