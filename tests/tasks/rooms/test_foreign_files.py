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


def dataset(root, load='lm4ve.LoadScene', **changes):
    pipeline = [dict(type=load), dict(type='lm4ve.PackScene')]
    return SQA3DDataset(changes.pop('split', 'train'), str(root), pipeline=pipeline, **changes)


def array(root, end):
    folder, suffix = ('objects', '') if end == 'objects' else ('scannet_data', f'_{end}')
    return root / folder / f'{FIRST}{suffix}.npy'


#: Kind of damage -> the array, and what becomes of its content or its file's bytes.
DAMAGES = {
    'cut points': ('aligned_vert', lambda data: data[:-7]),
    'a pickle': ('aligned_vert', lambda x: x.astype(object)),
    'nan': ('aligned_vert', lambda x: np.where(np.arange(9) == 1, np.nan, x)),
    'bright colors': ('aligned_vert', lambda x: x * 300),
    'other points': ('vert', lambda x: x[:50]),
    'moved points': ('vert', lambda x: x + [1, 1, 1, *[0] * 6]),
    'fewer labels': ('sem_label', lambda x: x[:9]),
    'large labels': ('ins_label', lambda x: x + np.uint32(2**31)),
    'no objects': ('objects', lambda x: x[:0]),
    'no rotation': ('txt', 'axisAlignment = 2 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1\n'),
    'another scan': ('txt', 'axisAlignment = 1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1\n'),
}


@pytest.mark.parametrize('kind', DAMAGES)
def test_damaged_scene_is_refused_or_left_out(kind, root, lines):
    end, edit = DAMAGES[kind]
    if end == 'txt':
        (root / f'scans/{FIRST}/{FIRST}.txt').write_text(edit)
    elif kind == 'cut points':
        array(root, end).write_bytes(edit(array(root, end).read_bytes()))
    else:
        np.save(array(root, end), edit(np.load(array(root, end))), allow_pickle=True)
    load = 'lm4ve.LoadObjects' if end == 'objects' else 'lm4ve.LoadScene'
    with pytest.raises(UserError, match=FIRST):
        dataset(root, load, on_corrupt='refuse')[0]
    data = dataset(root, load, max_refetch=200)
    assert {data[i]['data_samples'].scene_id for i in range(6)} == {SECOND}
    assert data.num_corrupt == 1 and sum('another sample' in x for x in lines) == 1
    lines.clear()
    tested = dataset(root, load, test_mode=True)
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


def edited(edit):
    """Return what edits the first question of the list."""

    def write(root):
        content = entries([FIRST, SECOND])
        edit(content[0])
        (root / LIST).write_text(json.dumps(content))

    return write


def official_edited(edit):
    """Return what edits the first question and annotation of the official files."""

    def write(root):
        found = official(entries([FIRST, SECOND]))
        edit(found[0]['questions'][0], found[1]['annotations'][0])
        for name, content in zip((QUESTIONS, ANNOTATIONS), found, strict=True):
            (root / name).write_text(json.dumps(content))
        return dict(ann_file=ANNOTATIONS, question_file=QUESTIONS)

    return write


def w_first(root):
    content = entries([FIRST, SECOND])
    for e in content:
        e['position'] = [*e['position'][:3], e['position'][6], *e['position'][3:6]]
    (root / LIST).write_text(json.dumps(content))


BAD_QUESTIONS = [
    official_edited(lambda q, a: a.update(rotation=dict(_x=0, _y=0, _z=0))),
    official_edited(lambda q, a: a.update(scene_id='s')),
    edited(lambda e: e.update(question_id=220602000001)),
    edited(lambda e: e.update(scene_id='../scene')),
    edited(lambda e: e.update(question='\ud800')),
    edited(lambda e: e.update(answers='text')),
    edited(lambda e: e.update(position=[0, 0, float('inf'), 0, 0, 0, 1])),
    w_first,
    lambda r: (r / LIST).write_text((r / LIST).read_text()[:90]),
    lambda r: (r / LIST).write_text((r / ANNOTATIONS).read_text()),
    lambda r: shutil.rmtree(r / 'scannet_data'),
    lambda r: dict(answers=[]),
]


@pytest.mark.parametrize('damage', BAD_QUESTIONS, ids=range(12))
def test_damaged_questions_are_refused_before_training(damage, root):
    changes = damage(root)
    with pytest.raises(UserError):
        dataset(root, **(changes if isinstance(changes, dict) else {}))


@pytest.mark.parametrize('name', ['question', 'situation'])
def test_questions_with_an_empty_text_are_left_out(name, root, lines):
    edited(lambda e: e.update({name: ' '}))(root)
    assert len(dataset(root)) == 5
    assert '1 of 6 entries have an empty situation or question' in lines[0]
    with pytest.raises(UserError, match="on_corrupt='skip'"):
        dataset(root, on_corrupt='refuse')
