"""ScanNet's scans become the arrays that the data set reads."""

import importlib.util
import json

import numpy as np
import pytest

from lm4ve.errors import UserError
from lm4ve.tasks.rooms.datasets.scene_files import read_scene
from tests.helpers.tasks import ROOT
from tests.tasks.rooms.scans import ALIGNMENT, write_labels, write_scan

SCENES = ['scene0000_00', 'scene0001_00']

PATH = ROOT / 'tools/vision_language/prepare_scannet.py'
spec = importlib.util.spec_from_file_location('prepare_scannet', PATH)
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)


@pytest.fixture
def given(tmp_path):
    """The arguments of the tool, with two scans: one binary, one of text."""
    for i, scene in enumerate(SCENES):
        write_scan(tmp_path / 'scans', scene, binary=i == 0, aggregation=tool.OBJECTS[i])
    labels = write_labels(tmp_path / 'labels.tsv')
    return dict(scans=tmp_path / 'scans', out=tmp_path / 'scannet_data', labels=labels)


def arrays_of(given, scene=SCENES[0]):
    return {k: np.load(given['out'] / f'{scene}_{k}.npy') for k in tool.KINDS}


def test_arrays_have_the_values_of_the_files(given):
    counts = tool.prepare_scans(**given)
    assert counts == dict(made=2, done_before=0, skipped=0, examples=[])
    found, other = (arrays_of(given, scene) for scene in SCENES)
    assert all(np.allclose(found[k], other[k], atol=1e-6) for k in found)
    assert found['sem_label'].tolist() == [2] * 4 + [5] * 4 + [7] * 4 + [0] * 4
    assert found['ins_label'].tolist() == [1] * 4 + [2] * 4 + [4] * 4 + [0] * 4
    # Chair and table, but no floor: center, size, NYU40 id, object.
    centers = np.array([[1.5, 2.25, 0.625], [3.5, 1.25, 0.325]])
    moved = centers @ ALIGNMENT[:3, :3].T + ALIGNMENT[:3, 3]
    np.testing.assert_allclose(found['aligned_bbox'][:, :3], moved, atol=1e-5)
    rest = [[0.5, 1, 0.25, 5, 1], [0.5, 1, 0.25, 7, 3]]
    np.testing.assert_allclose(found['aligned_bbox'][:, 3:], rest, atol=1e-6)
    scene = read_scene(
        str(given['out'] / SCENES[0]), str(given['scans'] / SCENES[0] / f'{SCENES[0]}.txt')
    )
    np.testing.assert_array_equal(scene['points'], found['aligned_vert'])
    assert scene['labels'].tolist() == [2, 4]


def test_drawn_points_are_rows_of_the_whole_scan(given):
    tool.prepare_scans(**given)
    whole = arrays_of(given)
    few = dict(given, out=given['out'].with_name('few'), max_points=7)
    tool.prepare_scans(**few)
    found = arrays_of(few)
    rows = [int(np.flatnonzero((whole['vert'] == p).all(axis=1))[0]) for p in found['vert']]
    assert rows == sorted(set(rows)) and len(rows) == 7
    for kind in ('aligned_vert', 'sem_label', 'ins_label'):
        np.testing.assert_array_equal(found[kind], whole[kind][rows])
    np.testing.assert_array_equal(found['aligned_bbox'], whole['aligned_bbox'])


def test_a_second_run_makes_only_what_is_missing(given):
    tool.prepare_scans(**given)
    lost = given['out'] / f'{SCENES[1]}_vert.npy'
    before = {p: p.stat().st_mtime_ns for p in given['out'].glob(f'{SCENES[0]}*.npy')}
    whole = lost.read_bytes()
    lost.unlink()
    counts = tool.prepare_scans(**given)
    assert (counts['made'], counts['done_before']) == (1, 1) and lost.read_bytes() == whole
    assert all(p.stat().st_mtime_ns == time for p, time in before.items())
    assert tool.prepare_scans(**given, max_points=9)['made'] == 2
    assert {len(arrays_of(given, scene)['vert']) for scene in SCENES} == {9}


def edited(name, edit):
    def write(folder):
        path = folder / name.format(folder.name)
        content = json.loads(path.read_text())
        edit(content)
        path.write_text(json.dumps(content))

    return write


def cut_mesh(folder):
    path = folder / f'{folder.name}_vh_clean_2.ply'
    path.write_bytes(path.read_bytes()[:-3])


SEGMENTS = '{}_vh_clean_2.0.010000.segs.json'
DAMAGES = dict(
    mesh=cut_mesh,
    segments=edited(SEGMENTS, lambda c: c['segIndices'].pop()),
    floats=edited(SEGMENTS, lambda c: c['segIndices'].__setitem__(0, 0.5)),
    group=edited('{}.aggregation.json', lambda c: c['segGroups'][0]['segments'].append(1)),
    label=edited('{}.aggregation.json', lambda c: c['segGroups'][0].update(label='sofa')),
    alignment=lambda folder: (folder / f'{folder.name}.txt').write_text('axisAlignment = 1 0\n'),
    missing=lambda folder: (folder / f'{folder.name}.aggregation.json').unlink(),
)


@pytest.mark.parametrize('kind', DAMAGES)
def test_damaged_scans_are_skipped_or_refused(kind, given):
    DAMAGES[kind](given['scans'] / SCENES[0])
    counts = tool.prepare_scans(**given)
    assert (counts['made'], counts['skipped']) == (1, 1) and SCENES[0] in counts['examples'][0]
    assert not list(given['out'].glob(f'{SCENES[0]}*'))
    with pytest.raises(UserError, match=SCENES[0]):
        tool.prepare_scans(**given, on_corrupt='refuse')


def test_arrays_of_another_program_stay(given):
    given['out'].mkdir()
    np.save(given['out'] / f'{SCENES[0]}_vert.npy', np.zeros(3))
    with pytest.raises(UserError, match='another program'):
        tool.prepare_scans(**given)
