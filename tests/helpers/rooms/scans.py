"""Tiny scans in ScanNet's own files, made by hand: a floor, a chair, a table, a lamp."""

import json

import numpy as np
from plyfile import PlyData, PlyElement

#: A quarter turn about z and a shift.
ALIGNMENT = np.array([[0.0, -1, 0, 2], [1, 0, 0, -1], [0, 0, 1, 0.5], [0, 0, 0, 1]])
LABELS = {'floor': 2, 'office chair': 5, 'table': 7, 'lamp': 35}
#: Name, id and corner of each thing; the lamp stands in no aggregation.
THINGS = (
    ('floor', 0, (0, 0, 0)),
    ('office chair', 1, (1, 2, 0.5)),
    ('table', 3, (3, 1, 0.2)),
)
UNLABELED = (5.0, 5.0, 1.0)


def write_ply(path, vertices, binary=True):
    """Write vertices ``[V, 6]`` as colored points."""
    kinds = [(c, 'f4') for c in 'xyz'] + [(c, 'u1') for c in ('red', 'green', 'blue')]
    rows = np.array([tuple(vertex) for vertex in vertices], dtype=kinds)
    element = PlyElement.describe(rows, 'vertex')
    PlyData([element], text=not binary).write(str(path))


def write_scan(
    scans, scene='scene0000_00', binary=True, aggregation='{}.aggregation.json'
):
    """Write one scan and return its folder."""
    folder = scans / scene
    folder.mkdir(parents=True)
    # A tetrahedron a thing, of two segments.
    corners = np.array([corner for *_, corner in THINGS] + [UNLABELED])
    tetrahedron = np.array([(0, 0, 0), (1, 0, 0), (0, 0.5, 0), (0, 0, 0.25)])
    points = (tetrahedron + corners[:, None]).reshape(-1, 3)
    colors = np.arange(48).reshape(-1, 3) * 5
    segments = np.arange(16) // 2 * 10 + 7
    vertices = np.hstack([points, colors])
    write_ply(folder / f'{scene}_vh_clean_2.ply', vertices, binary)
    content = dict(sceneId=scene, segIndices=segments.tolist())
    (folder / f'{scene}_vh_clean_2.0.010000.segs.json').write_text(json.dumps(content))
    groups = []
    for n, (name, number, _) in enumerate(THINGS):
        own = set(segments[4 * n : 4 * n + 4].tolist())
        group = dict(id=number, objectId=number, label=name, segments=sorted(own))
        groups.append(group)
    content = dict(sceneId=f'scannet.{scene}', segGroups=groups)
    (folder / aggregation.format(scene)).write_text(json.dumps(content))
    numbers = ' '.join(f'{x:.6f}' for x in ALIGNMENT.flat)
    (folder / f'{scene}.txt').write_text(
        f'axisAlignment = {numbers} \nnumDepthFrames = 9\n'
    )
    return folder


def write_labels(path):
    rows = [
        f'{i}\t{name}\t{name}\t{number}\n'
        for i, (name, number) in enumerate(LABELS.items())
    ]
    path.write_text('id\traw_category\tcategory\tnyu40id\n' + ''.join(rows))
    return path
