"""A scene becomes the sample that SQA3D's release makes of it.

``tools/dev/released/sqa3d.py`` has written what is compared.
"""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from lm4ve.tasks.rooms import SQA3DDataset
from lm4ve.tasks.rooms.models.preprocessor import SQA3DPreprocessor
from lm4ve.tasks.rooms.transforms import LoadScene, PackScene, SampleScenePoints, move
from tests.helpers.rooms.scenes import write_sqa3d
from tests.helpers.rooms.tiny import VECTORS
from tests.helpers.tasks import ROOT

RELEASED = np.load(ROOT / 'tests/data/released/sqa3d.npz')
#: The numbers of the stored samples: the first without augmentation, then mirrored along
#: no axis, x, y and both.
PLAIN = 0
AUGMENTED = (1, 2, 3, 4)
POINTS = 40
#: Places are a few meters in float32, and added up in another order.
CLOSE = dict(rtol=0, atol=2e-6)


def stored(case: int, name: str) -> torch.Tensor:
    return torch.from_numpy(RELEASED[f'{case}/{name}'])


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return write_sqa3d(tmp_path_factory.mktemp('scannet'))


def sample_of(case: int, root, monkeypatch) -> dict:
    """Prepare the scene with the points and motions that the release has drawn."""
    data = SQA3DDataset('train', str(root), pipeline=[], serialize_data=False)
    (entry,) = [
        dict(row)
        for row in data.data_list
        if row['scene_id'] == 'scene0000_00' and row['text'][1].startswith('Is the')
    ]
    results = LoadScene().transform(entry)
    chosen = RELEASED[f'{case}/points']
    monkeypatch.setattr(np.random, 'choice', lambda *args, **kwargs: chosen)
    results = SampleScenePoints(POINTS).transform(results)
    if case in AUGMENTED:
        move(results, steps_of(case), RELEASED[f'{case}/shift'])
    return PackScene().transform(results)


def steps_of(case: int) -> list[np.ndarray]:
    """Return the mirrors and turns that the release has drawn."""
    *mirrors, x, y, z = RELEASED[f'{case}/numbers']
    steps = []
    for axis, number in enumerate(mirrors):
        if number > 0.5:
            mirror = np.eye(3)
            mirror[axis, axis] = -1
            steps.append(mirror)
    for name, number in zip('xyz', (x, y, z), strict=True):
        angle = number * np.pi / 18 - np.pi / 36
        steps.append(Rotation.from_euler(name, angle).as_matrix())
    return steps


def test_samples_cover_all_mirrors():
    mirrors = {tuple(RELEASED[f'{case}/numbers'][:2] > 0.5) for case in AUGMENTED}
    assert len(mirrors) == 4


@pytest.mark.parametrize('case', [PLAIN, *AUGMENTED])
def test_points_votes_boxes_and_pose_are_the_released_ones(case, root, monkeypatch):
    packed = sample_of(case, root, monkeypatch)
    prepare = SQA3DPreprocessor(word_vectors=VECTORS)
    batch = dict(
        inputs=dict(points=[packed['inputs']['points']]),
        data_samples=[packed['data_samples']],
    )
    points = prepare(batch)['inputs']['points'][0]
    torch.testing.assert_close(points, stored(case, 'point_clouds'), **CLOSE)
    found = packed['data_samples']
    votes = stored(case, 'vote_label')[:, :3]
    torch.testing.assert_close(found.gt_votes, votes, **CLOSE)
    assert torch.equal(found.gt_vote_mask, stored(case, 'vote_label_mask').bool())
    pose = stored(case, 'auxiliary_task')
    # A rotation is two quaternions.
    sign = (pose[3:] * found.gt_pose[3:]).sum().sign()
    pose[3:] *= sign
    torch.testing.assert_close(found.gt_pose, pose, **CLOSE)
    count = int(stored(case, 'box_label_mask').sum())
    assert len(found.gt_boxes) == count
    labels = stored(case, 'size_class_label')[:count]
    assert torch.equal(found.gt_labels, labels)
    centers = stored(case, 'center_label')[:count]
    torch.testing.assert_close(found.gt_boxes[:, :3], centers, **CLOSE)
    sizes = stored(case, 'size_residual_label')[:count] + RELEASED['mean_sizes'][labels]
    if case == PLAIN:
        torch.testing.assert_close(
            found.gt_boxes[:, 3:].double(), sizes.double(), **CLOSE
        )
    else:
        # The released boxes do not enclose what they held before the turns.
        assert (found.gt_boxes[:, 3:] > sizes).any()
