"""ScanNet's own files of a scan, for ``fuzz.py`` to damage."""

import json
import runpy
from functools import partial
from pathlib import Path

import numpy as np
from fuzz_readers import LINES_WITHOUT_COUNT, READERS, Made

LINES_WITHOUT_COUNT['scannet-labels'] = 'a table is one label a line, without a count'
LINES_WITHOUT_COUNT['scannet-alignment'] = 'a text of one value a line, without a count'
_VERTICES = np.random.default_rng(0).uniform(0, 4, (24, 3)).astype('<f4')
_HEADER = (
    'ply\nformat binary_little_endian 1.0\nelement vertex 24\n'
    + ''.join(f'property float {c}\n' for c in 'xyz')
    + ''.join(f'property uchar {c}\n' for c in ('red', 'green', 'blue', 'alpha'))
    + 'element face 24\nproperty list uchar int vertex_indices\nend_header\n'
)
_GROUPS = [dict(id=i, objectId=i, label='chair', segments=[2 * i, 2 * i + 1]) for i in range(5)]
_LABELS = 'id\traw_category\tcategory\tnyu40id\tmpcat40\n'
_LABELS += ''.join(f'{i}\t{n}\t{n}\t{i + 1}\tx\n' for i, n in enumerate(['wall', 'floor', 'chair']))


def _mesh() -> bytes:
    rows = np.zeros(24, [('xyz', '<f4', 3), ('rgba', 'u1', 4)])
    rows['xyz'], rows['rgba'] = _VERTICES, np.arange(96).reshape(24, 4)
    faces = np.zeros(24, [('n', 'u1'), ('at', '<i4', 3)])
    faces['n'], faces['at'] = 3, [(i, (i + 1) % 24, (i + 7) % 24) for i in range(24)]
    return _HEADER.encode() + rows.tobytes() + faces.tobytes()


def _scan(folder: Path, mutated: str) -> Made:
    """Write one scan and the table of labels; it is read as the preparation reads it."""
    tool = runpy.run_path(str(Path(__file__).parents[1] / 'vision_language/prepare_scannet.py'))
    scan = folder / 'scene0000_00'
    scan.mkdir()
    segments = dict(params=dict(kThresh='0.01'), segIndices=[i // 2 for i in range(24)])
    files = {
        scan / 'scene0000_00_vh_clean_2.ply': _mesh(),
        scan / 'scene0000_00_vh_clean_2.0.010000.segs.json': json.dumps(segments).encode(),
        scan / 'scene0000_00.aggregation.json': json.dumps(dict(segGroups=_GROUPS)).encode(),
        scan / 'scene0000_00.txt': b'axisAlignment = 0 -1 0 2 1 0 0 3 0 0 1 0.5 0 0 0 1 \n',
        folder / 'labels.tsv': _LABELS.encode(),
    }
    for path, data in files.items():
        path.write_bytes(data)

    def read() -> dict[str, np.ndarray]:
        return tool['arrays_of'](scan, tool['label_ids'](folder / 'labels.tsv'), 20)

    return next(path for path in files if path.name.endswith(mutated)), read


for _name, _file in (
    ('scannet-mesh', '.ply'),
    ('scannet-segments', '.segs.json'),
    ('scannet-objects', '.aggregation.json'),
    ('scannet-alignment', '0.txt'),
    ('scannet-labels', '.tsv'),
):
    READERS[_name] = partial(_scan, mutated=_file)
