"""The embedded rooms: read as anybody's files are, each answer follows from what is there."""

import collections
import re

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from lm4ve.demo_data import rooms as r
from lm4ve.errors import UserError
from lm4ve.registry import DATASETS
from lm4ve.tasks.rooms.datasets import rooms

SMALL = dict(train=6, val=2, test=8)
STEPS = [dict(type='lm4ve.LoadScene'), dict(type='lm4ve.PackScene')]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return rooms.write_rooms(tmp_path_factory.mktemp('data') / 'rooms', SMALL)


def read(folder, split='test', **options):
    kind = dict(type='lm4ve.Rooms', split=split, data_root=str(folder), rooms=SMALL)
    return DATASETS.build(dict(kind, pipeline=STEPS, verify=False, **options))


def things_of(sample: dict) -> list[tuple[str, str, str]]:
    """What stands where, seen by who asks: side, shape and color of each box of a sample."""
    points = sample['inputs']['points'].numpy()
    data = sample['data_samples']
    place, turn = np.split(data.gt_pose.numpy(), [3])
    # Ahead is -x in the asker's own frame, so that the left is -y there.
    to_asker = Rotation.from_quat(turn).inv()
    found = []
    for box, label in zip(data.gt_boxes.numpy(), data.gt_labels.tolist(), strict=True):
        x, y, _ = to_asker.apply(box[:3] - place)
        if abs(x) > abs(y):
            side = 'front' if x < 0 else 'behind'
        else:
            side = 'left' if y < 0 else 'right'
        inside = (abs(points[:, :3] - box[:3]) <= box[3:] / 2 + 1e-3).all(axis=1)
        painted = np.median(points[inside, 3:6], axis=0)
        distances = {
            name: np.linalg.norm(np.array(rgb) - painted)
            for name, rgb in r.COLORS.items()
        }
        color = min(distances, key=distances.get)
        named, shape = r.NAMES[label].split()
        assert named == color
        found.append((side, shape, color))
    return found


def answer_of(question: str, things: list[tuple[str, str, str]]) -> str:
    """Answer a question by looking around."""
    side_of_words = {words: side for side, words in r.SIDES.items()}
    side_of_words[''] = 'front'
    form = rf'(.+?) ?({"|".join(side_of_words)})\?'
    begin, words = re.fullmatch(form, question).groups()
    here = []
    for side, shape, color in things:
        if side == side_of_words[words]:
            here.append((shape, color))
    if begin == 'What is':
        (shape,) = {shape for shape, _ in here}
        return shape
    if begin == 'What color is the thing':
        (color,) = {color for _, color in here}
        return color
    form = r'(How many|Is there a|Can I see a) (\w+)(?: .*)?'
    start, noun = re.fullmatch(form, begin).groups()
    # "boxes" begins with the shape, "red things" with the color.
    (name,) = {name for name in (*r.SHAPES, *r.COLORS) if noun.startswith(name)}
    count = sum(name in thing for thing in here)
    if start == 'How many':
        return str(count)
    return 'yes' if count else 'no'


def test_every_answer_follows_from_points_and_pose(folder):
    compass = dict(north=(0, 1), east=(1, 0), south=(0, -1), west=(-1, 0))
    data = read(folder)
    asked = collections.Counter()
    assert len(data) == SMALL['test'] * r.QUESTIONS
    for sample in data:
        found = sample['data_samples']
        situation, question = found.text
        things = things_of(sample)
        assert found.gt_answers == [answer_of(question, things)], (found.text, things)
        asked[found.question_type] += 1
        ahead = Rotation.from_quat(found.gt_pose[3:].numpy()).apply((-1, 0, 0))[:2]
        (named,) = [c for c in compass if c in situation]
        np.testing.assert_allclose(ahead, compass[named], atol=0.02)
        assert abs(found.gt_pose[:2]).max() <= r.STEP + 1e-3
    assert set(asked) == {'what', 'is', 'how', 'can'}


def test_splits_share_no_room_and_more_begin_alike(folder, tmp_path):
    more = rooms.write_rooms(tmp_path / 'rooms', dict(train=7))
    name = 'scannet_data/scene0003_00_vert.npy'
    assert (folder / name).read_bytes() == (more / name).read_bytes()
    all_scenes = set()
    for split, count in SMALL.items():
        data = read(folder, split)
        scenes = {data.get_data_info(i)['scene_id'] for i in range(len(data))}
        assert len(scenes) == count
        all_scenes |= scenes
    assert len(all_scenes) == sum(SMALL.values())
    with pytest.raises(UserError):
        rooms.write_rooms(folder, dict(SMALL, test=9))
