"""SQA3D's files become the rooms, questions and poses that are in them."""

import copy
import json

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from scipy.spatial.transform import Rotation

from lm4ve.tasks.rooms import SQA3DDataset, transforms
from lm4ve.tasks.rooms.datasets.scene_files import read_scene
from tests.tasks.rooms.scenes import ALIGNMENT, ANSWERS, entries, write_scene, write_sqa3d
from tests.tasks.rooms.tiny import build, run

OFFICIAL = dict(
    ann_file='qa/v1_balanced_sqa_annotations_{split}_scannetv2.json',
    question_file='qa/v1_balanced_questions_{split}_scannetv2.json',
)
PACK = dict(type='lm4ve.PackScene')
#: All points in their order, so that labels can be compared.
WHOLE = [dict(type='lm4ve.LoadScene', normals=True), PACK]


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return write_sqa3d(tmp_path_factory.mktemp('scannet'))


@pytest.fixture(scope='module')
def arrays(root):
    folder = root / 'scannet_data'
    return {p.stem.split('_', 2)[2]: np.load(p) for p in folder.glob('scene0000_00_*.npy')}


def dataset(root, split='train', pipeline=WHOLE, **changes):
    return SQA3DDataset(split, str(root), pipeline=copy.deepcopy(pipeline), **changes)


def pipeline(*steps, **load):
    return [dict(type='lm4ve.LoadScene', **load), *steps, PACK]


def test_the_two_layouts_hold_the_same_questions(root):
    """Also where the keys of a rotation come in another order."""
    one, two = dataset(root), dataset(root, **OFFICIAL)
    assert len(one) == len(two) == 6
    for a, b in zip(one, two, strict=True):
        assert a['data_samples'].metainfo == b['data_samples'].metainfo
        assert a['data_samples'].gt_pose.equal(b['data_samples'].gt_pose)
    kept = dict(one[0]['data_samples'].metainfo_items())
    assert kept.pop('text') == ['I am facing the chair.', 'What is behind me?']
    assert kept.items() >= dict(question_type='what', question_id=220602000000).items()
    assert (kept['scene_id'], kept['gt_answers']) == ('scene0000_00', ['table'])


def test_points_are_those_of_the_file(root, arrays):
    aligned = arrays['aligned_vert']
    height = aligned[:, 2:3] - np.percentile(aligned[:, 2], 0.99)
    found = dataset(root)[0]['inputs']['points'].numpy()
    np.testing.assert_allclose(found, np.concatenate((aligned, height), axis=1), rtol=1e-6)
    for load, columns in (
        (dict(), [0, 1, 2, 3, 4, 5, 9]),
        (dict(color=False), [0, 1, 2, 9]),
        (dict(color=False, height=False), [0, 1, 2]),
    ):
        got = dataset(root, pipeline=pipeline(**load))[0]['inputs']['points'].numpy()
        np.testing.assert_array_equal(got, found[:, columns])


def test_a_scene_is_not_changed_by_its_readers(root):
    """The release normalized colors in place, and a worker's second sample saw that."""
    steps = pipeline(dict(type='lm4ve.AugmentScene'))
    data = dataset(root, pipeline=steps)
    before = dataset(root)[0]
    for i in range(len(data)):
        data[i]['inputs']['points'][:] = 0
        data[i]['data_samples'].gt_boxes[:] = 0
        data[i]['data_samples'].gt_labels[:] = 0
    info = data.get_data_info(0)
    shared = read_scene(info['scene_path'], info['scan_file'])
    with pytest.raises(ValueError, match='read-only'):
        shared.points[:, 3:6] -= 109.8
    after = dataset(root)[0]
    assert after['inputs']['points'].equal(before['inputs']['points'])
    for name in ('gt_boxes', 'gt_labels', 'gt_votes', 'gt_pose'):
        assert after['data_samples'].get(name).equal(before['data_samples'].get(name))


def test_boxes_votes_and_classes_are_of_objects_alone(root, arrays):
    sample = dataset(root)[0]['data_samples']
    np.testing.assert_allclose(sample.gt_boxes, arrays['aligned_bbox'][:3, :6], rtol=1e-6)
    assert sample.gt_labels.tolist() == [2, 4, 17]
    objects = arrays['sem_label'] != 1
    assert sample.gt_vote_mask.tolist() == objects.tolist()
    ends = arrays['aligned_vert'][:, :3] + sample.gt_votes.numpy()
    centers = arrays['aligned_bbox'][arrays['ins_label'] - 1, :3]
    np.testing.assert_allclose(ends[objects], centers[objects], atol=1e-5)
    assert not sample.gt_votes[~objects].any()


def test_poses_are_in_the_aligned_room(root, arrays):
    entry = entries(['scene0000_00', 'scene0001_00'])[4]
    raw = arrays['vert'][:, :3].astype(np.float64)
    place = np.array(entry['position'][:3]) + (raw.max(0) + raw.min(0)) / 2
    pose = dataset(root)[4]['data_samples'].gt_pose.numpy()
    np.testing.assert_allclose(pose[:3], ALIGNMENT[:3] @ [*place, 1], atol=1e-5)
    # The third question looks 90 degrees to the side, in a room that was turned by 30.
    yaw = Rotation.from_quat(pose[3:]).as_euler('xyz', degrees=True)
    np.testing.assert_allclose(yaw, [0, 0, 90 + 30], atol=1e-3)


def test_rotations_of_any_length_are_read(root, tmp_path):
    """As SciPy reads a rotation in the released code."""
    listed = entries(['scene0000_00'])
    before = dataset(root, 'train')[0]['data_samples'].gt_pose
    listed[0]['position'][3:] = [3 * v for v in listed[0]['position'][3:]]
    listed[1]['answers'] = ['']
    (tmp_path / 'a.json').write_text(json.dumps(listed))
    data = dataset(root, ann_file=str(tmp_path / 'a.json'))
    torch.testing.assert_close(data[0]['data_samples'].gt_pose, before)
    assert data[1]['data_samples'].gt_answers == []


def test_sampled_points_keep_labels_and_follow_a_seed(root, arrays):
    data = dataset(root, pipeline=pipeline(dict(type='lm4ve.SampleScenePoints', num=25, seed=3)))
    first, again, third = data[0], data[0], data[2]  # two questions about one scene
    points = first['inputs']['points']
    assert points.shape == (25, 7) and len(points.unique(dim=0)) == 25
    assert points.equal(again['inputs']['points']) and points.equal(third['inputs']['points'])
    rows = {tuple(p): s != 1 for p, s in zip(arrays['aligned_vert'][:, :3].tolist(),
                                             arrays['sem_label'], strict=True)}  # fmt: skip
    mask = first['data_samples'].gt_vote_mask.tolist()
    assert mask == [rows[tuple(p)] for p in points[:, :3].tolist()]
    free = dataset(root, pipeline=pipeline(dict(type='lm4ve.SampleScenePoints', num=100)))
    drawn = [free[0]['inputs']['points'] for _ in range(2)]
    assert drawn[0].shape == (100, 7) and not drawn[0].equal(drawn[1])


def test_stored_objects_are_given_as_they_are(root, tmp_path):
    steps = [dict(type='lm4ve.LoadObjects'), PACK]
    data = dataset(root, pipeline=steps)
    stored = np.load(root / 'objects/scene0000_00.npy')
    np.testing.assert_array_equal(data[0]['inputs']['objects'], stored)
    assert data[0]['data_samples'].gt_pose.equal(dataset(root)[0]['data_samples'].gt_pose)
    np.savez(tmp_path / 'scene0000_00.npz', features=stored)
    prefix = dict(objects=str(tmp_path), scenes='nowhere', scans='nowhere')
    steps[0]['pose'] = False
    data = dataset(root, pipeline=steps, data_prefix=prefix)
    assert len(data) == 3  # the other scene has no file
    np.testing.assert_array_equal(data[0]['inputs']['objects'], stored)
    assert 'gt_pose' not in data[0]['data_samples']


def test_unknown_answers_are_left_out_of_training(root, caplog):
    known = [a for a in ANSWERS if a != 'two']
    data = dataset(root, answers=known)
    assert {d['data_samples'].gt_answers[0] for d in data} == {'table', 'yes'}
    assert len(data) == 4 and len(dataset(root, 'val', answers=known)) == 3


def results(root, **changes):
    """What LoadScene gives for a question, with normals; turned by nothing."""
    data = dataset(root, pipeline=[dict(type='lm4ve.LoadScene', normals=True)])
    return data[2] | changes


@pytest.mark.parametrize('axis', [0, 1])
def test_a_mirrored_room_is_the_room_in_a_mirror(root, axis):
    before, after = results(root), results(root)
    mirror = np.eye(3)
    mirror[axis, axis] = -1
    transforms.move(after, [mirror])
    for name, end in (('points', 3), ('boxes', 3), ('pose', 3)):
        a, b = before[name][..., :end], after[name][..., :end]
        np.testing.assert_allclose(b, a * np.diag(mirror), rtol=1e-6)
    np.testing.assert_array_equal(after['boxes'][:, 3:], before['boxes'][:, 3:])
    np.testing.assert_array_equal(after['points'][:, [3, 4, 5, 9]],
                                  before['points'][:, [3, 4, 5, 9]])  # fmt: skip
    gazes = [Rotation.from_quat(r['pose'][3:]).apply([-1, 0, 0]) for r in (before, after)]
    np.testing.assert_allclose(gazes[1], gazes[0] * np.diag(mirror), atol=1e-6)
    # The released code's own rule, for turns around z.
    turn = Rotation.from_quat(before['pose'][3:]).as_matrix()
    if axis == 0:
        turn[0, 0], turn[1, 1] = -turn[0, 0], -turn[1, 1]
    else:
        turn = turn[[1, 0, 2]][:, [1, 0, 2]]
    found = Rotation.from_quat(after['pose'][3:]).as_matrix()
    np.testing.assert_allclose(found, turn, atol=1e-6)


def test_augmentation_is_one_motion_of_all_parts(root):
    np.random.seed(0)
    before, after = results(root), results(root)
    transforms.AugmentScene(flip=0.0, angle=30.0, shift=2.0)(after)
    a, b = (r['points'][:, :3].astype(np.float64) for r in (before, after))
    ones = np.ones((len(a), 1))
    fitted, residual, *_ = np.linalg.lstsq(np.concatenate((a, ones), 1), b, rcond=None)
    turn, shift = fitted[:3].T, fitted[3]
    assert residual.max() < 1e-8 and np.abs(shift).max() > 0.1
    gazes = [Rotation.from_quat(r['pose'][3:]).as_matrix() for r in (before, after)]
    for found, expected in (
        (turn @ turn.T, np.eye(3)),
        (gazes[1], turn @ gazes[0]),
        (after['pose'][:3], turn @ before['pose'][:3] + shift),
        (after['points'][:, 6:9], before['points'][:, 6:9] @ turn.T),
        (after['boxes'][:, :3], before['boxes'][:, :3] @ turn.T + shift),
    ):
        np.testing.assert_allclose(found, expected, atol=1e-4)
    # No corner of a box leaves the box that goes with the room.
    signs = np.array(np.meshgrid(*[(-0.5, 0.5)] * 3)).reshape(3, 8).T
    for old, new in zip(before['boxes'], after['boxes'], strict=True):
        corners = (old[:3] + signs * old[3:]) @ turn.T + shift
        assert (np.abs(corners - new[:3]) <= new[3:] / 2 + 1e-4).all()


def write_questions(root, split):
    (root / 'qa').mkdir()
    (root / f'qa/SQA_{split}.json').write_text(json.dumps(entries(['scene0000_00'])))


def test_a_scan_without_alignment_stays_as_scanned(tmp_path):
    arrays = write_scene(tmp_path, 'scene0000_00')
    (tmp_path / 'scans/scene0000_00/scene0000_00.txt').write_text('colorHeight = 968\n')
    np.save(tmp_path / 'scannet_data/scene0000_00_aligned_vert.npy', arrays['vert'])
    write_questions(tmp_path, 'val')
    sample = dataset(tmp_path, 'val')[0]['data_samples']
    raw = arrays['vert'][:, :3].astype(np.float64)
    expected = np.array([0.5, 0, 0]) + (raw.max(0) + raw.min(0)) / 2
    np.testing.assert_allclose(sample.gt_pose[:3], expected, atol=1e-5)


def test_a_room_without_any_object_trains_and_tests(tmp_path):
    arrays = write_scene(tmp_path, 'scene0000_00')
    folder = tmp_path / 'scannet_data'
    np.save(folder / 'scene0000_00_aligned_bbox.npy', arrays['aligned_bbox'][:0])
    np.save(folder / 'scene0000_00_sem_label.npy', np.zeros(60, dtype=np.uint32))
    write_questions(tmp_path, 'train')
    steps = pipeline(dict(type='lm4ve.AugmentScene'))
    data = [dataset(tmp_path, pipeline=steps)[i] for i in range(2)]
    sample = data[0]['data_samples']
    assert sample.gt_boxes.shape == (0, 6) and sample.gt_labels.shape == (0,)
    assert not sample.gt_vote_mask.any() and not sample.gt_votes.any()
    sample.set_metainfo(dict(gt_answers=['chair']))
    losses = run(build(), pseudo_collate(data), 'loss')
    assert all(torch.isfinite(value) for value in losses.values())
