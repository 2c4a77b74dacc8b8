"""ScanNet's scans become the arrays that the data set reads."""

import json

import numpy as np
import pytest

from lm4ve.errors import UserError
from lm4ve.tasks.rooms.datasets.scene_files import read_scene
from tests.helpers import hostile
from tests.helpers.tools import run_tool_here
from tests.tasks.rooms.scans import ALIGNMENT, write_labels, write_scan

SCENES = ['scene0000_00', 'scene0001_00']


@pytest.fixture
def scans(tmp_path):
    """Two scans: one binary, one of text, whose objects are of the finer mesh."""
    write_scan(tmp_path / 'scans', SCENES[0])
    write_scan(tmp_path / 'scans', SCENES[1], False, '{}_vh_clean.aggregation.json')
    return tmp_path / 'scans'


@pytest.fixture
def prepare(scans, tmp_path, capsys):
    """Runs the tool and returns its counts."""
    labels = write_labels(tmp_path / 'labels.tsv')

    def run(*options, out='scannet_data'):
        tool = 'vision_language/prepare_scannet.py'
        run_tool_here(tool, scans, tmp_path / out, '--labels', labels, *options)
        return json.loads(capsys.readouterr().out)

    return run


def arrays_of(tmp_path, scene=SCENES[0], out='scannet_data'):
    kinds = ('vert', 'aligned_vert', 'sem_label', 'ins_label', 'aligned_bbox')
    return {k: np.load(tmp_path / out / f'{scene}_{k}.npy') for k in kinds}


def test_arrays_have_the_values_of_the_files(prepare, scans, tmp_path):
    assert prepare() == dict(made=2, done_before=0, skipped=0, examples=[])
    found, other = (arrays_of(tmp_path, scene) for scene in SCENES)
    assert all(np.allclose(found[k], other[k], atol=1e-6) for k in found)
    assert found['sem_label'].tolist() == [2] * 4 + [5] * 4 + [7] * 4 + [0] * 4
    assert found['ins_label'].tolist() == [1] * 4 + [2] * 4 + [4] * 4 + [0] * 4
    # Chair and table, but no floor: center, size, NYU40 id, object.
    centers = np.array([[1.5, 2.25, 0.625], [3.5, 1.25, 0.325]])
    moved = centers @ ALIGNMENT[:3, :3].T + ALIGNMENT[:3, 3]
    rest = [[0.5, 1, 0.25, 5, 1], [0.5, 1, 0.25, 7, 3]]
    np.testing.assert_allclose(found['aligned_bbox'], np.hstack((moved, rest)), atol=1e-5)
    start, text = tmp_path / 'scannet_data' / SCENES[0], scans / SCENES[0] / f'{SCENES[0]}.txt'
    scene = read_scene(str(start), str(text))
    np.testing.assert_array_equal(scene['points'], found['aligned_vert'])
    assert scene['labels'].tolist() == [2, 4]


def test_drawn_points_are_rows_of_the_whole_scan(prepare, tmp_path):
    prepare()
    prepare('--max-points', 7, out='few')
    whole, found = arrays_of(tmp_path), arrays_of(tmp_path, out='few')
    rows = [int(np.flatnonzero((whole['vert'] == p).all(axis=1))[0]) for p in found['vert']]
    assert rows == sorted(set(rows)) and len(rows) == 7
    for kind in ('aligned_vert', 'sem_label', 'ins_label'):
        np.testing.assert_array_equal(found[kind], whole[kind][rows])
    np.testing.assert_array_equal(found['aligned_bbox'], whole['aligned_bbox'])


def edited(name, change):
    return lambda folder: hostile.edit(folder / name.format(folder.name), change)


def cut_mesh(folder):
    path = folder / f'{folder.name}_vh_clean_2.ply'
    path.write_bytes(path.read_bytes()[:-3])


SEGMENTS = '{}_vh_clean_2.0.010000.segs.json'
DAMAGES = dict(
    mesh=cut_mesh,
    segments=edited(SEGMENTS, lambda c: c['segIndices'].pop()),
    label=edited('{}.aggregation.json', lambda c: c['segGroups'][0].update(label='sofa')),
    missing=lambda folder: (folder / f'{folder.name}.aggregation.json').unlink(),
)


@pytest.mark.parametrize('kind', DAMAGES)
def test_damaged_scans_are_skipped_or_refused(kind, prepare, scans, tmp_path):
    DAMAGES[kind](scans / SCENES[0])
    counts = prepare()
    assert (counts['made'], counts['skipped']) == (1, 1) and SCENES[0] in counts['examples'][0]
    assert not list(tmp_path.glob(f'scannet_data/{SCENES[0]}*'))
    with pytest.raises(UserError, match=SCENES[0]):
        prepare('--on-corrupt', 'refuse')


def test_arrays_of_another_program_stay(prepare, tmp_path):
    (tmp_path / 'scannet_data').mkdir()
    np.save(tmp_path / f'scannet_data/{SCENES[0]}_vert.npy', np.zeros(3))
    with pytest.raises(UserError, match='another program'):
        prepare()
