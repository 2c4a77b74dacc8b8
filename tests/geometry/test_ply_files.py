"""What a .ply file promises is compared with what it holds, in each encoding and at no cost."""

import tracemalloc

import numpy as np
import pytest
from plyfile import PlyData, PlyElement

from lm4ve.geometry.mesh_files import read_mesh
from lm4ve.geometry.ply_files import read_ply

ENCODINGS = {'ascii': '=', 'binary_little_endian': '<', 'binary_big_endian': '>'}


def write(path, encoding, faces, name='vertex_indices'):
    """Write six colored vertices and faces of any lengths, with a number beside each list."""
    kinds = [(axis, 'f8') for axis in 'xyz'] + [('red', 'u1')]
    vertices = np.zeros(6, kinds)
    rows = np.empty(len(faces), [('quality', 'f4'), (name, object)])
    rows['quality'] = 0.5
    for row, face in zip(rows, faces, strict=True):
        row[name] = np.array(face, np.int32)
    elements = [
        PlyElement.describe(vertices, 'vertex'),
        PlyElement.describe(rows, 'face'),
    ]
    text, order = encoding == 'ascii', ENCODINGS[encoding]
    PlyData(elements, text, order, comments=['made by hand']).write(str(path))


@pytest.mark.parametrize('encoding', ENCODINGS)
@pytest.mark.parametrize('name', ['vertex_indices', 'vertex_index'])
@pytest.mark.parametrize('lengths', [[3, 3, 3], [3, 4, 5, 1, 3], [4, 4], []], ids=str)
def test_corners_are_read_in_each_encoding(lengths, name, encoding, tmp_path):
    rng = np.random.default_rng(len(lengths))
    faces = [rng.permutation(6)[:length] for length in lengths]
    write(tmp_path / 'a.ply', encoding, faces, name)
    content = read_ply(tmp_path / 'a.ply')
    assert content.colors is None
    assert content.mesh.points.shape == (6, 3)
    assert content.mesh.num_corners.tolist() == lengths
    assert content.mesh.corners.tolist() == [
        corner for face in faces for corner in face
    ]


@pytest.mark.parametrize('encoding', ENCODINGS)
@pytest.mark.parametrize('lengths', [[3, 3], [4, 3]], ids=str)
def test_corners_that_do_not_exist_are_refused(lengths, encoding, tmp_path):
    for corner in (-1, 6):
        faces = [[corner, *range(1, length)] for length in lengths]
        write(tmp_path / 'a.ply', encoding, faces)
        with pytest.raises(ValueError, match='a vertex that does not exist'):
            read_mesh(tmp_path / 'a.ply')


@pytest.mark.parametrize('encoding', ENCODINGS)
@pytest.mark.parametrize('more', [b'\x01', b'0 0 0\n'])
def test_what_follows_the_last_row_is_refused(more, encoding, tmp_path):
    path = tmp_path / 'a.ply'
    write(path, encoding, [[0, 1, 2], [0, 1, 2, 3]])
    path.write_bytes(path.read_bytes() + more + b'\n')
    with pytest.raises(ValueError, match='more follows'):
        read_ply(path)


PLACE = 'property float x\nproperty float y\nproperty float z\n'
FACES = 'property list uchar int vertex_indices\n'
#: Headers that promise this many rows of something.
PROMISES = {
    'vertices': f'element vertex {{0}}\n{PLACE}',
    'faces': f'element vertex 1\n{PLACE}element face {{0}}\n{FACES}',
    'rows of nothing': f'element nothing {{0}}\nelement vertex 1\n{PLACE}',
    'columns': 'element vertex {1}\n'
    + PLACE
    + ''.join(f'property double a{i}\n' for i in range(900)),
}


@pytest.mark.parametrize('encoding', ENCODINGS)
@pytest.mark.parametrize('body', PROMISES.values(), ids=PROMISES)
def test_no_memory_is_taken_for_rows_that_are_not_there(body, encoding, tmp_path):
    path = tmp_path / 'a.ply'
    body = body.format(5_000_000, 10_000)
    path.write_text(f'ply\nformat {encoding} 1.0\n{body}end_header\n{"0 0 0" * 9}\n')
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match='promises more than'):
            read_ply(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5_000_000


@pytest.mark.parametrize('letter', ['\r', '\v', '\x1c', '\x00', 'ä'], ids=repr)
@pytest.mark.parametrize('line_end', ['\n', '\r\n'])
def test_headers_that_can_be_read_in_two_ways_are_refused(letter, line_end, tmp_path):
    lines = [
        'ply',
        'format ascii 1.0',
        f'comment{letter}element vertex 9',
        'element vertex 1',
    ]
    lines += [*PLACE.splitlines(), 'end_header', '0 0 0', '']
    text = line_end.join(lines)
    (tmp_path / 'a.ply').write_bytes(text.encode('latin-1'))
    with pytest.raises(ValueError, match='line 3 of its header'):
        read_ply(tmp_path / 'a.ply')
    (tmp_path / 'a.ply').write_bytes(
        text.replace(letter + 'element', ' element').encode()
    )
    assert len(read_ply(tmp_path / 'a.ply').mesh.points) == 1


@pytest.mark.parametrize('count', ['-1', '1_0', '+1', 'x', ''])
def test_counts_are_digits_alone(count, tmp_path):
    text = f'ply\nformat ascii 1.0\nelement vertex {count}\n{PLACE}end_header\n0 0 0\n'
    (tmp_path / 'a.ply').write_text(text)
    with pytest.raises(ValueError, match='has no count'):
        read_ply(tmp_path / 'a.ply')
