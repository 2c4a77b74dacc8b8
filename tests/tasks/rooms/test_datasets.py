"""SQA3D's files become the rooms and questions in them; what is wrong is one message."""

import functools
import json
import shutil

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from lm4ve.errors import UserError
from lm4ve.tasks.rooms import SQA3DDataset, transforms
from lm4ve.tasks.rooms.datasets.scannet import CLASSES, NYU40_IDS, classes_of
from lm4ve.tasks.rooms.datasets.scene_files import read_objects, read_scene
from tests.helpers import hostile
from tests.helpers.logs import record_logs
from tests.helpers.rooms.scenes import (
    ALIGNMENT,
    ANSWERS,
    entries,
    write_scene,
    write_sqa3d,
)

OFFICIAL = dict(
    ann_file='qa/v1_balanced_sqa_annotations_{split}_scannetv2.json',
    question_file='qa/v1_balanced_questions_{split}_scannetv2.json',
)
LOAD = dict(type='lm4ve.LoadScene')


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return write_sqa3d(tmp_path_factory.mktemp('scannet'))


@pytest.fixture(scope='module')
def arrays(root):
    folder = root / 'scannet_data'
    return {
        p.stem.split('_', 2)[2]: np.load(p) for p in folder.glob('scene0000_00_*.npy')
    }


def dataset(root, *steps, split='train', load=LOAD, **changes):
    pipeline = [load, *steps, dict(type='lm4ve.PackScene')]
    return SQA3DDataset(split, str(root), pipeline=pipeline, **changes)


def test_every_object_has_a_class_and_walls_have_none():
    assert len(CLASSES) == len(NYU40_IDS) + 1 == 18
    expected = ['cabinet', 'chair', 'refrigerator', 'bathtub', 'others', 'others']
    assert [
        CLASSES[i] for i in classes_of(np.array([3, 5, 24, 36, 39, 40]))
    ] == expected
    assert (classes_of(np.array([0, 1, 2, 22, 41, -1])) == -1).all()


def test_the_two_layouts_hold_the_same_questions(root):
    """Also where the keys of a rotation come in another order."""
    one, two = dataset(root), dataset(root, **OFFICIAL)
    assert len(one) == len(two) == 6
    for a, b in (
        (x['data_samples'], y['data_samples']) for x, y in zip(one, two, strict=True)
    ):
        assert a.metainfo == b.metainfo and a.gt_pose.equal(b.gt_pose)
    kept = one[0]['data_samples']
    assert kept.text == ['I am facing the chair.', 'What is behind me?']
    assert (kept.question_type, kept.question_id) == ('what', 220602000000)
    assert (kept.scene_id, kept.gt_answers) == ('scene0000_00', ['table'])


def test_points_are_those_of_the_file(root, arrays):
    aligned = arrays['aligned_vert']
    height = aligned[:, 2:3] - np.percentile(aligned[:, 2], 0.99)
    whole = np.concatenate((aligned[:, :6], height), axis=1)
    for load, columns in (
        (dict(), [0, 1, 2, 3, 4, 5, 6]),
        (dict(color=False), [0, 1, 2, 6]),
        (dict(color=False, height=False), [0, 1, 2]),
    ):
        found = dataset(root, load=LOAD | load)[0]['inputs']['points']
        np.testing.assert_allclose(found, whole[:, columns], rtol=1e-6)


def test_a_scene_is_not_changed_by_its_readers(root):
    """The release normalized colors in place, and a worker's second sample saw that."""
    info = dataset(root).get_data_info(0)
    scene = read_scene(info['scene_path'], info['scan_file'])
    assert not any(array.flags.writeable for array in scene.values())
    before, augmented = (
        dataset(root)[0],
        dataset(root, dict(type='lm4ve.AugmentScene'))[0],
    )
    for value in (augmented['inputs']['points'], augmented['data_samples'].gt_boxes):
        value[:] = 0
    augmented['data_samples'].gt_labels[:] = 0
    after = dataset(root)[0]
    assert after['inputs']['points'].equal(before['inputs']['points'])
    for name in ('gt_boxes', 'gt_labels', 'gt_votes', 'gt_pose'):
        assert after['data_samples'].get(name).equal(before['data_samples'].get(name))


def test_boxes_votes_and_classes_are_of_objects_alone(root, arrays):
    sample = dataset(root)[0]['data_samples']
    np.testing.assert_allclose(
        sample.gt_boxes, arrays['aligned_bbox'][:3, :6], rtol=1e-6
    )
    assert sample.gt_labels.tolist() == [2, 4, 17]
    objects = arrays['sem_label'] != 1
    assert sample.gt_vote_mask.tolist() == objects.tolist()
    ends = arrays['aligned_vert'][:, :3] + sample.gt_votes.numpy()
    centers = arrays['aligned_bbox'][arrays['ins_label'] - 1, :3]
    np.testing.assert_allclose(ends[objects], centers[objects], atol=1e-5)
    assert not sample.gt_votes[~objects].any()


def test_poses_are_in_the_aligned_room(root, arrays, tmp_path):
    listed = entries(['scene0000_00'])
    entry = listed[2]
    # Rotations of any length are read, as by SciPy in the released code.
    entry['position'][3:] = [3 * v for v in entry['position'][3:]]
    entry['answers'], entry['question'] = [''], ' Why? '
    (tmp_path / 'a.json').write_text(json.dumps(listed))
    raw = arrays['vert'][:, :3].astype(np.float64)
    place = np.array(entry['position'][:3]) + (raw.max(0) + raw.min(0)) / 2
    sample = dataset(root, ann_file=str(tmp_path / 'a.json'))[2]['data_samples']
    pose = sample.gt_pose.numpy()
    np.testing.assert_allclose(pose[:3], ALIGNMENT[:3] @ [*place, 1], atol=1e-5)
    # The third question looks 90 degrees to the side, in a room that was turned by 30.
    yaw = Rotation.from_quat(pose[3:]).as_euler('xyz', degrees=True)
    np.testing.assert_allclose(yaw, [0, 0, 90 + 30], atol=1e-3)
    assert sample.gt_answers == [] and sample.text[1] == ' Why? '


def test_sampled_points_keep_labels_and_follow_a_seed(root, arrays):
    data = dataset(root, dict(type='lm4ve.SampleScenePoints', num=25, seed=3))
    first, third = data[0], data[2]  # two questions about one scene
    points = first['inputs']['points']
    assert points.shape == (25, 7) and len(points.unique(dim=0)) == 25
    assert points.equal(third['inputs']['points'])
    all_points = arrays['aligned_vert'][:, :3].tolist()
    rows = [all_points.index(point) for point in points[:, :3].tolist()]
    mask = first['data_samples'].gt_vote_mask.tolist()
    assert mask == (arrays['sem_label'][rows] != 1).tolist()
    free = dataset(root, dict(type='lm4ve.SampleScenePoints', num=100))
    drawn = free[0]['inputs']['points']
    assert drawn.shape == (100, 7)
    assert not drawn.equal(free[0]['inputs']['points'])


def test_stored_objects_are_given_as_they_are(root):
    load = dict(type='lm4ve.LoadObjects')
    sample = dataset(root, load=load)[0]
    stored = np.load(root / 'objects/scene0000_00.npy')
    np.testing.assert_array_equal(sample['inputs']['objects'], stored)
    assert sample['data_samples'].gt_pose.equal(
        dataset(root)[0]['data_samples'].gt_pose
    )
    prefix = dict(objects=str(root / 'objects'), scenes='nowhere', scans='nowhere')
    sample = dataset(root, load=load | dict(pose=False), data_prefix=prefix)[0]
    np.testing.assert_array_equal(sample['inputs']['objects'], stored)
    assert 'gt_pose' not in sample['data_samples']


def test_unknown_answers_are_left_out_of_training(root):
    known = [a for a in ANSWERS if a != 'two']
    assert len(dataset(root, answers=known)) == 4
    assert len(dataset(root, split='val', answers=known)) == 3


def moved(root, move):
    """Two samples' parts, before and after a motion, and the poses as matrices."""
    parts = [SQA3DDataset('train', str(root), pipeline=[LOAD])[2] for _ in range(2)]
    move(parts[1])
    return *parts, *(Rotation.from_quat(r['pose'][3:]).as_matrix() for r in parts)


@pytest.mark.parametrize('axis', [0, 1])
def test_a_mirrored_room_is_the_room_in_a_mirror(root, axis):
    mirror = np.eye(3)
    mirror[axis, axis] = -1
    before, after, turn, turned = moved(
        root, lambda x: transforms.move(x, [mirror], np.zeros(3))
    )
    for name in ('points', 'boxes', 'pose'):
        a, b = before[name][..., :3], after[name][..., :3]
        np.testing.assert_allclose(b, a * np.diag(mirror), rtol=1e-6)
    np.testing.assert_array_equal(after['boxes'][:, 3:], before['boxes'][:, 3:])
    np.testing.assert_array_equal(after['points'][:, 3:], before['points'][:, 3:])
    np.testing.assert_allclose(turned[:, 0], turn[:, 0] * np.diag(mirror), atol=1e-6)
    # The released code's own rule, for turns around z.
    signs, swap = [[-1, 1, 1], [1, -1, 1], [1, 1, 1]], [1, 0, 2]
    turn = turn * signs if axis == 0 else turn[swap][:, swap]
    np.testing.assert_allclose(turned, turn, atol=1e-6)


def test_augmentation_is_one_motion_of_all_parts(root):
    augment = transforms.AugmentScene(flip=0.0, angle=30.0, shift=2.0)
    before, after, looked, looks = moved(root, augment.transform)
    old_points = before['points'][:, :3].astype(np.float64)
    new_points = after['points'][:, :3].astype(np.float64)
    with_ones = np.hstack((old_points, np.ones((len(old_points), 1))))
    fitted, residual, *_ = np.linalg.lstsq(with_ones, new_points, rcond=None)
    turn = fitted[:3].T
    shift = fitted[3]
    assert residual.max() < 1e-8
    assert np.abs(shift).max() > 0.1
    close = functools.partial(np.testing.assert_allclose, atol=1e-4)
    close(turn @ turn.T, np.eye(3))
    close(looks, turn @ looked)
    close(after['pose'][:3], turn @ before['pose'][:3] + shift)
    close(after['boxes'][:, :3], before['boxes'][:, :3] @ turn.T + shift)
    # No corner of a box leaves the box that goes with the room.
    signs = np.array(np.meshgrid(*[(-0.5, 0.5)] * 3)).reshape(3, 8).T
    for old, new in zip(before['boxes'], after['boxes'], strict=True):
        corners = (old[:3] + signs * old[3:]) @ turn.T + shift
        assert (np.abs(corners - new[:3]) <= new[3:] / 2 + 1e-4).all()


def test_a_room_without_alignment_or_objects_is_read(tmp_path):
    arrays = write_scene(tmp_path, 'scene0000_00')
    (tmp_path / 'qa').mkdir()
    (tmp_path / 'qa/SQA_train.json').write_text(json.dumps(entries(['scene0000_00'])))
    (tmp_path / 'scans/scene0000_00/scene0000_00.txt').write_text('colorHeight = 968\n')
    start = str(tmp_path / 'scannet_data/scene0000_00')
    np.save(f'{start}_aligned_vert.npy', arrays['vert'])
    np.save(f'{start}_aligned_bbox.npy', arrays['aligned_bbox'][:0])
    np.save(f'{start}_sem_label.npy', np.zeros(60, dtype=np.uint32))
    sample, raw = dataset(tmp_path)[0]['data_samples'], arrays['vert'][:, :3]
    place = np.array([0.5, 0, 0]) + (raw.max(0) + raw.min(0)) / 2
    np.testing.assert_allclose(sample.gt_pose[:3], place, atol=1e-5)
    assert sample.gt_boxes.shape == (0, 6) and not sample.gt_vote_mask.any()


FIRST, SECOND = 'scene0000_00', 'scene0001_00'
LIST = 'qa/SQA_train.json'
ANNOTATIONS = OFFICIAL['ann_file'].format(split='train')


@pytest.fixture
def copied(root, tmp_path):
    read_scene.cache_clear()
    return shutil.copytree(root, tmp_path / 'scannet')


@pytest.fixture
def lines(monkeypatch):
    modules = ('lm4ve.data.integrity',)
    return record_logs(monkeypatch, *modules)


def file_of(copied, end):
    others = dict(objects=f'objects/{FIRST}.npy', txt=f'scans/{FIRST}/{FIRST}.txt')
    return copied / others.get(end, f'scannet_data/{FIRST}_{end}.npy')


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
def test_damaged_scene_is_refused_or_left_out(kind, copied, lines):
    end, edit = DAMAGES[kind]
    file = file_of(copied, end)
    if end == 'txt':
        file.write_text(edit)
    elif kind == 'cut points':
        file.write_bytes(edit(file.read_bytes()))
    else:
        np.save(file, edit(np.load(file)), allow_pickle=True)
    load = dict(type='lm4ve.LoadObjects') if end == 'objects' else LOAD
    with pytest.raises(UserError, match=FIRST):
        dataset(copied, load=load, on_corrupt='refuse')[0]
    with pytest.raises(UserError, match=f'1 of 2 scenes are corrupt.*{FIRST}'):
        dataset(copied, load=load, test_mode=True)
    tested = dataset(copied, load=load, test_mode=True, on_corrupt='skip')
    assert tested.num_left_out == 3
    assert {tested[i]['data_samples'].scene_id for i in range(len(tested))} == {SECOND}
    assert sum('1 of 2 scenes are corrupt' in line for line in lines) == 1


@pytest.mark.parametrize(
    'end', ['vert', 'aligned_vert', 'ins_label', 'aligned_bbox', 'txt']
)
def test_questions_about_missing_scenes_are_counted(end, copied, lines):
    file = file_of(copied, end)
    file.unlink()
    assert len(dataset(copied)) == 3
    (line,) = [x for x in lines if 'lack files' in x]
    assert (
        '3 of 6 entries are about scenes that lack files' in line and file.name in line
    )
    with pytest.raises(UserError, match=file.name):
        dataset(copied, test_mode=True)


def w_first(listed):
    for e in listed:
        e['position'] = [*e['position'][:3], e['position'][6], *e['position'][3:6]]


BAD_QUESTIONS = [
    (
        ANNOTATIONS,
        lambda c: c['annotations'][0].update(rotation=dict(_x=0, _y=0, _z=0)),
    ),
    (ANNOTATIONS, lambda c: c['annotations'][0].update(scene_id='s')),
    (LIST, lambda c: c[0].update(question_id=220602000001)),
    (LIST, lambda c: c[0].update(scene_id='../scene')),
    (LIST, lambda c: c[0].update(question='\ud800')),
    (LIST, lambda c: c[0].update(answers='text')),
    (LIST, lambda c: c[0].update(position=[0, 0, float('inf'), 0, 0, 0, 1])),
    (LIST, w_first),
]


@pytest.mark.parametrize('file, change', BAD_QUESTIONS, ids=range(8))
def test_damaged_questions_are_refused_before_training(file, change, copied):
    hostile.edit(copied / file, change)
    with pytest.raises(UserError):
        dataset(copied, **(OFFICIAL if file == ANNOTATIONS else {}))


@pytest.mark.parametrize('name', ['question', 'situation'])
def test_questions_with_an_empty_text_are_left_out(name, copied):
    hostile.edit(copied / LIST, lambda c: c[0].update({name: ' '}))
    assert len(dataset(copied)) == 5


@pytest.mark.parametrize('values', [[[True]], [['1.5']]], ids=['bool', 'text'])
def test_an_array_without_numbers_is_refused_by_its_type(values):
    with pytest.raises(ValueError, match='is no array of numbers'):
        read_objects(np.array(values))


def test_features_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match='values that are not finite'):
        read_objects(np.array([[np.nan]]))
