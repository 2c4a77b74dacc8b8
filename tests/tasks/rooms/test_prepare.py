"""ScanNet's files become the arrays of ScanQA's layout; damage, kills and second runs."""

import fcntl
import json
import pickle
import shutil

import numpy as np
import pytest

from lm4ve.errors import UserError
from lm4ve.tasks.rooms import prepare
from lm4ve.tasks.rooms.prepare import KINDS, prepare_scans, vertex_normals
from lm4ve.tasks.rooms.raw_scans import read_scan
from tests.helpers.tools import run_tool_here
from tests.tasks.rooms.scans import (
    ALIGNMENT,
    LABELS,
    THINGS,
    ply,
    vertices_and_faces,
    write_labels,
    write_scan,
)


@pytest.fixture
def scans(tmp_path):
    for i in range(3):
        write_scan(tmp_path / 'scans', f'scene000{i}_00')
    write_labels(tmp_path / 'labels.tsv')
    return tmp_path / 'scans'


def run(scans, out='arrays', **options):
    root = scans.parent
    return prepare_scans(scans, root / out, root / 'labels.tsv', quiet=True, **options)


def arrays(scans, scene='scene0000_00', out='arrays'):
    paths = {kind: scans.parent / out / f'{scene}_{kind}.npy' for kind in KINDS}
    return {kind: np.load(path, allow_pickle=False) for kind, path in paths.items()}


@pytest.mark.parametrize('binary', [True, False])
def test_a_scan_becomes_what_a_loop_over_its_vertices_gives(binary, scans):
    shutil.rmtree(scans)
    write_scan(scans, binary=binary)
    assert run(scans) == dict(scans=1, done_before=0, without_objects=0, skipped={}, examples=[])
    found = arrays(scans)
    vertices, faces, _ = vertices_and_faces()
    assert found['vert'].dtype == found['aligned_vert'].dtype == np.float32
    np.testing.assert_allclose(found['vert'][:, :6], vertices, atol=1e-6)
    for i, vertex in enumerate(vertices):
        np.testing.assert_allclose(
            found['aligned_vert'][i],
            [*(ALIGNMENT @ [*vertex[:3], 1])[:3], *found['vert'][i, 3:]],
            atol=1e-5,
        )
        normals = []
        for a, b, c in faces:
            if i in (a, b, c):
                n = np.cross(vertices[b, :3] - vertices[a, :3], vertices[c, :3] - vertices[a, :3])
                normals.append(n / np.linalg.norm(n))
        mean = np.mean(normals, axis=0)
        np.testing.assert_allclose(found['vert'][i, 6:], mean / np.linalg.norm(mean), atol=1e-5)
        name, number, _ = THINGS[i // 4] if i < 12 else ('', -1, None)
        assert found['sem_label'][i] == LABELS.get(name, 0)
        assert found['ins_label'][i] == number + 1
    for kind, points in (('bbox', 'vert'), ('aligned_bbox', 'aligned_vert')):
        assert found[kind].shape == (2, 8)  # the floor is no object
        for row, (name, number, _), at in zip(found[kind], THINGS[1:], (4, 8), strict=True):
            xyz = found[points][at : at + 4, :3]
            np.testing.assert_allclose(row[:3] + row[3:6] / 2, xyz.max(axis=0), atol=1e-6)
            np.testing.assert_allclose(row[:3] - row[3:6] / 2, xyz.min(axis=0), atol=1e-6)
            assert row[6:].tolist() == [LABELS[name], number]


def test_boxes_are_of_all_vertices_although_fewer_points_are_kept(scans):
    run(scans)
    whole = arrays(scans)
    run(scans, 'few', max_points=9)
    few, other = arrays(scans, out='few'), arrays(scans, 'scene0001_00', 'few')
    assert len(few['vert']) == len(few['ins_label']) == len(few['aligned_vert']) == 9
    np.testing.assert_array_equal(few['bbox'], whole['bbox'])
    rows = [int(np.flatnonzero((whole['vert'] == v).all(axis=1))[0]) for v in few['vert']]
    np.testing.assert_array_equal(few['ins_label'], whole['ins_label'][rows])
    np.testing.assert_array_equal(few['aligned_vert'], whole['aligned_vert'][rows])
    assert not np.array_equal(few['vert'], other['vert'])  # another draw for each scan
    run(scans, 'again', max_points=9, workers=2)
    np.testing.assert_array_equal(arrays(scans, out='again')['vert'], few['vert'])


def test_a_finished_scan_is_kept_and_a_damaged_or_changed_one_made_again(scans):
    run(scans)
    out = scans.parent / 'arrays'
    time = (out / 'scene0000_00_vert.npy').stat().st_mtime_ns
    cut = out / 'scene0001_00_bbox.npy'
    cut.write_bytes(cut.read_bytes()[:-8])
    (scans / 'scene0002_00/scene0002_00.txt').write_text('axisAlignment = 1\n')
    found = run(scans)
    assert found['done_before'] == 1 and found['scans'] == 2
    assert found['skipped'] == {'damaged alignment': 1}
    assert (out / 'scene0000_00_vert.npy').stat().st_mtime_ns == time
    assert arrays(scans, 'scene0001_00')['bbox'].shape == (2, 8)
    assert run(scans, max_points=5)['done_before'] == 0  # another limit, other arrays


def test_a_killed_run_goes_on_where_it_stopped(scans, monkeypatch):
    seen = []

    def killed(folder):
        seen.append(folder.name)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return read_scan(folder)

    monkeypatch.setattr(prepare, 'read_scan', killed)
    with pytest.raises(KeyboardInterrupt):
        run(scans)
    assert run(scans)['done_before'] == 1
    assert seen == ['scene0000_00', *['scene0001_00'] * 2, 'scene0002_00']
    names = {p.name for p in scans.parent.iterdir()}
    assert names == {'scans', 'labels.tsv', 'arrays'}  # no lock is left


def test_a_kill_in_the_middle_of_a_scan_leaves_it_to_be_made_again(scans, monkeypatch):
    def killed(array, path):
        if path.name.endswith('_sem_label.npy'):
            raise KeyboardInterrupt
        return write(array, path)

    write = prepare._write
    monkeypatch.setattr(prepare, '_write', killed)
    with pytest.raises(KeyboardInterrupt):
        run(scans)
    monkeypatch.undo()
    assert run(scans) == dict(scans=3, done_before=0, without_objects=0, skipped={}, examples=[])


def test_a_second_run_on_one_output_is_refused(scans):
    with (scans.parent / '.arrays.lock').open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match='Another run is making .*arrays'):
            run(scans)


def test_arrays_of_another_program_are_not_replaced(scans):
    out = scans.parent / 'arrays'
    out.mkdir()
    np.save(out / 'scene0001_00_vert.npy', np.zeros((4, 9)))
    with pytest.raises(UserError, match=r'another program wrote \(scene0001_00\)'):
        run(scans)


def test_what_does_not_come_back_from_the_disk_is_an_error(scans, monkeypatch):
    monkeypatch.setattr(prepare.np, 'load', lambda *_, **__: np.zeros(3))
    with pytest.raises(UserError, match='does not hold what was written'):
        run(scans)


def edit(suffix, change):
    """Change the JSON of a scan."""

    def apply(folder):
        path = folder / f'{folder.name}{suffix}'
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return apply


def replace(suffix, data):
    return lambda folder: (folder / f'{folder.name}{suffix}').write_bytes(data)


SEGS, OBJECTS, MESH = '_vh_clean_2.0.010000.segs.json', '.aggregation.json', '_vh_clean_2.ply'
VERTICES, FACES, _ = vertices_and_faces()
NAN = np.where(np.arange(6) == 1, np.nan, VERTICES)
DAMAGE = {
    'a cut mesh': (replace(MESH, ply(VERTICES, FACES)[:-5]), 'damaged mesh'),
    'no faces': (replace(MESH, ply(VERTICES, FACES[:0])), 'damaged mesh'),
    'a NaN': (replace(MESH, ply(NAN, FACES, binary=False)), 'damaged mesh'),
    'other colors': (replace(MESH, ply(VERTICES * 2, FACES, binary=False)), 'damaged mesh'),
    'no colors': (replace(MESH, ply(VERTICES, FACES).replace(b' red', b' hue')), 'damaged mesh'),
    'no mesh': (lambda f: (f / f'{f.name}{MESH}').unlink(), 'missing file'),
    'no objects': (lambda f: (f / f'{f.name}{OBJECTS}').unlink(), 'missing file'),
    'a pickle': (replace(SEGS, pickle.dumps([1])), 'damaged annotation'),
    'a cut JSON': (replace(OBJECTS, b'{"segGroups": ['), 'damaged annotation'),
    'other keys': (edit(SEGS, lambda c: c.update(segments=c.pop('segIndices'))), None),
    'no groups': (edit(OBJECTS, lambda c: c.pop('segGroups')), 'damaged annotation'),
    'a text as id': (edit(OBJECTS, lambda c: c['segGroups'][0].update(objectId='1')), None),
    'a fraction': (edit(SEGS, lambda c: c['segIndices'].append(0.5)), 'damaged annotation'),
    'a segment out of range': (
        edit(OBJECTS, lambda c: c['segGroups'][1]['segments'].append(99)),
        'files of two meshes',
    ),
    'fewer segments': (edit(SEGS, lambda c: c['segIndices'].pop()), 'files of two meshes'),
    'an unknown label': (
        edit(OBJECTS, lambda c: c['segGroups'][1].update(label='throne')),
        'unknown label',
    ),
    'a matrix that stretches': (
        replace('.txt', b'axisAlignment = 2 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1\n'),
        'damaged alignment',
    ),
}


@pytest.mark.parametrize('name', DAMAGE)
def test_a_damaged_scan_is_counted_or_refused_with_one_message(name, scans):
    spoil, kind = DAMAGE[name]
    spoil(scans / 'scene0001_00')
    found = run(scans)
    assert found['skipped'] == {kind or 'damaged annotation': 1} and found['scans'] == 2
    assert 'scene0001_00' in found['examples'][0] and 'Fix:' in found['examples'][0]
    assert not (scans.parent / 'arrays/scene0001_00_vert.npy').exists()
    with pytest.raises(UserError, match='scene0001_00'):
        run(scans, 'other', on_corrupt='refuse')


def test_a_text_without_alignment_leaves_the_scan_as_it_is(scans):
    replace('.txt', b'numDepthFrames = 9\n')(scans / 'scene0000_00')
    run(scans)
    found = arrays(scans)
    np.testing.assert_array_equal(found['vert'], found['aligned_vert'])
    np.testing.assert_array_equal(found['bbox'], found['aligned_bbox'])


def test_objects_of_the_finer_mesh_are_read_where_no_others_are(tmp_path):
    write_scan(tmp_path / 'scans', aggregation='{}_vh_clean.aggregation.json')
    write_labels(tmp_path / 'labels.tsv')
    assert run(tmp_path / 'scans')['scans'] == 1


def test_an_object_whose_segments_another_takes_has_no_box_and_walls_have_none(scans):
    def take(content):
        groups = content['segGroups']
        groups[2]['segments'] += groups[1]['segments']

    edit(OBJECTS, take)(scans / 'scene0000_00')
    edit(OBJECTS, lambda c: c.update(segGroups=c['segGroups'][:1]))(scans / 'scene0001_00')
    assert run(scans)['without_objects'] == 1
    assert arrays(scans)['bbox'][:, 7].tolist() == [3]
    assert arrays(scans, 'scene0001_00')['bbox'].shape == (0, 8)


def test_a_triangle_without_area_has_no_normal():
    points = np.array([(0.0, 0, 0), (1, 0, 0), (2, 0, 0), (0, 1, 0)])
    normals = vertex_normals(points, np.array([(0, 1, 2), (0, 1, 3)]))
    np.testing.assert_allclose(normals, [(0, 0, 1), (0, 0, 1), (0, 0, 0), (0, 0, 1)])


def test_a_list_names_the_scans_and_missing_ones_are_counted(scans):
    names = scans.parent / 'names.txt'
    names.write_text('scene0002_00\nscene0009_00\n')
    found = run(scans, names=names)
    assert found['scans'] == 1 and found['skipped'] == {'missing file': 1}
    names.write_text('../scans\n')
    with pytest.raises(UserError, match="expected a scan's name"):
        run(scans, names=names)


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(max_points=0), 'must be at least 1'),
        (dict(on_corrupt='ignore'), 'on_corrupt'),
        (dict(names='missing.txt'), 'missing.txt'),
    ],
)
def test_wrong_arguments_are_refused(options, message, scans):
    with pytest.raises(UserError, match=message):
        run(scans, **options)


def test_scans_of_which_none_is_usable_are_an_error_and_so_is_another_table(scans):
    for folder in scans.iterdir():
        (folder / f'{folder.name}.txt').unlink()
    with pytest.raises(UserError, match='None of the 3 scans.*"missing file": 3'):
        run(scans)
    (scans.parent / 'labels.tsv').write_text('id\tname\n1\tchair\n')
    with pytest.raises(UserError, match='scannetv2-labels.combined.tsv'):
        run(scans)


def test_the_tool_prints_what_became_of_the_scans(scans, capsys):
    spoil, _ = DAMAGE['a cut mesh']
    spoil(scans / 'scene0000_00')
    paths = scans, scans.parent / 'arrays', '--labels', scans.parent / 'labels.tsv'
    run_tool_here('vision_language/prepare_scannet.py', *paths)
    printed = capsys.readouterr().out
    printed = json.loads(printed[printed.index('{\n') :])
    assert printed['scans'] == 2 and printed['skipped'] == {'damaged mesh': 1}
