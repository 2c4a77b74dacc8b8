"""Tiny scans in ScanNet's own files, made by hand: a floor, a chair, a table, a lamp."""

import json

import numpy as np

#: A quarter turn about z and a shift.
ALIGNMENT = np.array([[0.0, -1, 0, 2], [1, 0, 0, -1], [0, 0, 1, 0.5], [0, 0, 0, 1]])
LABELS = {'floor': 2, 'office chair': 5, 'table': 7, 'lamp': 35}
#: Name, id and corner of each thing; the lamp stands in no aggregation.
THINGS = (('floor', 0, (0, 0, 0)), ('office chair', 1, (1, 2, 0.5)), ('table', 3, (3, 1, 0.2)))
UNLABELED = (5.0, 5.0, 1.0)


def vertices_and_faces():
    """Vertices ``[4 * 4, 6]``, triangles, and the segment of each: two a thing."""
    corners = [corner for *_, corner in THINGS] + [UNLABELED]
    tetrahedron = np.array([(0, 0, 0), (1, 0, 0), (0, 0.5, 0), (0, 0, 0.25)])
    points = np.concatenate([tetrahedron + corner for corner in corners])
    colors = np.arange(len(points) * 3).reshape(-1, 3) * 5
    sides = np.array([(0, 2, 1), (0, 1, 3), (0, 3, 2), (1, 2, 3)])
    faces = np.concatenate([sides + 4 * i for i in range(len(corners))])
    segments = np.arange(len(points)) // 2 * 10 + 7
    return np.hstack([points, colors]), faces, segments


def ply(vertices, faces, binary=True, count=None):
    kind = 'binary_little_endian' if binary else 'ascii'
    head = f'ply\nformat {kind} 1.0\nelement vertex {count or len(vertices)}\n'
    head += ''.join(f'property float {c}\n' for c in 'xyz')
    head += ''.join(f'property uchar {c}\n' for c in ('red', 'green', 'blue', 'alpha'))
    head += f'element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n'
    if binary:
        rows = np.zeros(len(vertices), [('xyz', '<f4', 3), ('rgba', 'u1', 4)])
        rows['xyz'], rows['rgba'][:, :3] = vertices[:, :3], vertices[:, 3:]
        sides = np.zeros(len(faces), [('n', 'u1'), ('at', '<i4', 3)])
        sides['n'], sides['at'] = 3, faces
        return head.encode() + rows.tobytes() + sides.tobytes()
    lines = [' '.join([*map(str, v[:3]), *(str(int(c)) for c in v[3:]), '255']) for v in vertices]
    lines += ['3 ' + ' '.join(map(str, f)) for f in faces]
    return (head + '\n'.join(lines) + '\n').encode()


def write_scan(scans, scene='scene0000_00', binary=True, aggregation='{}.aggregation.json'):
    """Write one scan and return its folder."""
    folder = scans / scene
    folder.mkdir(parents=True)
    vertices, faces, segments = vertices_and_faces()
    (folder / f'{scene}_vh_clean_2.ply').write_bytes(ply(vertices, faces, binary))
    content = dict(sceneId=scene, segIndices=segments.tolist())
    (folder / f'{scene}_vh_clean_2.0.010000.segs.json').write_text(json.dumps(content))
    groups = [
        dict(id=i, objectId=i, label=name, segments=sorted({*segments[4 * n : 4 * n + 4].tolist()}))
        for n, (name, i, _) in enumerate(THINGS)
    ]
    content = dict(sceneId=f'scannet.{scene}', segGroups=groups)
    (folder / aggregation.format(scene)).write_text(json.dumps(content))
    numbers = ' '.join(f'{x:.6f}' for x in ALIGNMENT.flat)
    (folder / f'{scene}.txt').write_text(f'axisAlignment = {numbers} \nnumDepthFrames = 9\n')
    return folder


def write_labels(path):
    rows = [f'{i}\t{name}\t{name}\t{number}\n' for i, (name, number) in enumerate(LABELS.items())]
    path.write_text('id\traw_category\tcategory\tnyu40id\n' + ''.join(rows))
    return path
