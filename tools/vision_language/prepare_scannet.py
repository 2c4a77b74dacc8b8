"""Turn ScanNet's scans into the arrays that SQA3D's models are trained on.

    python tools/vision_language/prepare_scannet.py data/scannet/scans \\
        data/scannet/scannet_data --labels data/scannet/scannetv2-labels.combined.tsv --workers 8

Of each scan it needs {scan}_vh_clean_2.ply, {scan}_vh_clean_2.0.010000.segs.json,
{scan}.aggregation.json and {scan}.txt. A killed run goes on where it stopped when it is
started again: a scan is done when its arrays have the hashes that were noted after writing.
The layout is that of ScanRefer, ScanQA and SQA3D, so that files made by either are read alike.
"""

import argparse
import csv
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from lm4ve.errors import UserError, check
from lm4ve.files import replacing, write_json
from lm4ve.runner.command_line import run_tool
from lm4ve.tasks.rooms.datasets.scene_files import read_alignment, read_mesh, vertex_normals
from lm4ve.tasks.rooms.scannet import NO_OBJECTS

#: The arrays of a scan; its files are ``{scene}_{kind}.npy``.
KINDS = ('vert', 'aligned_vert', 'sem_label', 'ins_label', 'bbox', 'aligned_bbox')
#: A folder beside the arrays, with the hashes of each scan that is done.
NOTES = '.prepared'
#: The second kind of objects is of the finer mesh; some copies of the data have it alone.
OBJECTS = ('{}.aggregation.json', '{}_vh_clean.aggregation.json')


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('scans', type=Path, help="ScanNet's folder with a folder for each scan")
    add('out', type=Path, help='the folder to write arrays to (scannet_data)')
    add('--labels', type=Path, required=True, help='scannetv2-labels.combined.tsv')
    add('--names', type=Path, help='a list of scans, a name a line; default: all')
    add('--max-points', type=int, default=50_000, help='of a scan; default: 50,000')
    add('--workers', type=int, default=1)
    add('--on-corrupt', choices=('skip', 'refuse'), default='skip',
        help='leave scans out that cannot be read and count them, or stop')  # fmt: skip
    args = parser.parse_args(argv)
    print(json.dumps(prepare_scans(**vars(args)), indent=2))


def prepare_scans(
    scans: Path,
    out: Path,
    labels: Path,
    names: Path | None = None,
    max_points: int = 50_000,
    workers: int = 1,
    on_corrupt: str = 'skip',
) -> dict:
    """Write the arrays of scans, except of those that are done; return counts.

    Raises:
        UserError: Another run works on ``out``; it holds arrays that another program wrote;
            no scan is usable; with 'refuse', the first scan that is not.
    """
    check('--max-points', max_points, least=1)
    if names is None:
        folders = sorted(p for p in scans.iterdir() if p.is_dir() and p.name[0] != '.')
    else:
        folders = [scans / Path(name).name for name in names.read_text().split()]
    ids = label_ids(labels)
    (out / NOTES).mkdir(parents=True, exist_ok=True)
    for folder in folders:
        if list(out.glob(f'{folder.name}_*.npy')) and not _note_of(out, folder.name).is_file():
            raise UserError(f"'{out}' holds arrays of {folder.name} that another program wrote.")
    try:
        with FileLock(out / NOTES / 'lock', timeout=0):
            work = partial(prepare_scan, out, ids, max_points, on_corrupt)
            if workers == 1:
                found = list(map(work, folders))
            else:
                with ProcessPoolExecutor(workers) as pool:
                    found = list(pool.map(work, folders))
    except Timeout as e:
        raise UserError(f"Another run is making '{out}'. Fix: wait for its end.") from e
    counts = Counter(kind for kind, _ in found)
    errors = [error for kind, error in found if kind == 'skipped']
    if len(errors) == len(found):
        raise UserError(f'None of the {len(found)} scans is usable. The first: {errors[:1]}')
    return dict(made=0, done_before=0, skipped=0) | counts | dict(examples=errors[:5])


def label_ids(path: Path) -> dict[str, int]:
    """Read the NYU40 id of each label from scannetv2-labels.combined.tsv."""
    with open(path, encoding='utf-8', newline='') as file:
        rows = csv.DictReader(file, delimiter='\t')
        return {row['raw_category']: int(row['nyu40id']) for row in rows}


def prepare_scan(
    out: Path, ids: Mapping[str, int], max_points: int, on_corrupt: str, folder: Path
) -> tuple[str, str]:
    """Prepare one scan: return 'made', 'done_before' or 'skipped', and the error's words."""
    note = _note_of(out, folder.name)
    try:
        source = _source_of(folder, ids, max_points)
        if note.is_file() and _is_whole(out, folder.name, json.loads(note.read_text()), source):
            return 'done_before', ''
        arrays = arrays_of(folder, ids, max_points)
    except (ValueError, LookupError, OSError, StopIteration) as e:
        if on_corrupt == 'refuse':
            raise UserError(f"The scan '{folder}' cannot be prepared: {e!r}") from e
        return 'skipped', f'{folder.name}: {e!r}'
    write_json(dict(source=source, files={}), note)  # whose the arrays are
    for kind, array in arrays.items():
        with replacing(_file(out, folder.name, kind)) as beside, open(beside, 'wb') as file:
            np.save(file, array, allow_pickle=False)
    hashes = {kind: _hash(_file(out, folder.name, kind)) for kind in KINDS}
    write_json(dict(source=source, files=hashes), note)
    return 'made', ''


def arrays_of(folder: Path, ids: Mapping[str, int], max_points: int) -> dict[str, np.ndarray]:
    """Compute the arrays of one scan: V vertices, of which P are kept, and K objects.

    Returns:
        dict[str, np.ndarray]: ``vert`` and ``aligned_vert``, float32 ``[P, 9]`` (coordinates in
        meters, of the second aligned with the room; colors from 0 to 255; normals);
        ``sem_label`` and ``ins_label``, uint32 ``[P]`` (NYU40 id, object + 1; 0 where nothing
        is annotated); ``bbox`` and ``aligned_bbox``, float64 ``[K, 8]`` (the boxes around all
        vertices of an object: center, size, NYU40 id, object; none of walls and floors).

    Raises:
        ValueError, LookupError: A file is damaged, or the files are not of one mesh.

    Source:
        ScanRefer's ``load_scannet_data.py`` and ``batch_load_scannet_data.py``. A normal is
        the mean of all triangles at a vertex; there it is of at most three of them.
    """
    mesh, segs, aggregation, text = files_of(folder)
    vertices, triangles = read_mesh(mesh)
    segment_of = np.array(json.loads(segs.read_text())['segIndices'])
    if segment_of.shape != (len(vertices),) or segment_of.dtype.kind != 'i':
        raise ValueError(f'{segs.name} and {mesh.name} are not of one mesh')
    segments, place = np.unique(segment_of, return_inverse=True)
    semantic, instance = np.zeros((2, len(segments)), np.int64)
    for group in json.loads(aggregation.read_text())['segGroups']:
        at = np.searchsorted(segments, group['segments'])
        if not np.array_equal(segments[at.clip(max=len(segments) - 1)], group['segments']):
            raise ValueError(f'{aggregation.name} and {segs.name} are not of one mesh')
        semantic[at], instance[at] = ids[group['label']], int(group['objectId']) + 1
    semantic, instance = semantic[place], instance[place]

    points = np.hstack([vertices, vertex_normals(vertices[:, :3], triangles)]).astype(np.float32)
    aligned, alignment = points.copy(), read_alignment(str(text))
    turn, shift = alignment[:3, :3], alignment[:3, 3]
    aligned[:, :3] = points[:, :3].astype(np.float64) @ turn.T + shift
    objects = [(i, semantic[instance == i][0]) for i in np.unique(instance[instance > 0])]
    objects = [(i, label) for i, label in objects if label not in NO_OBJECTS]
    boxes = [
        np.array([_box(p[instance == i, :3], label, i - 1) for i, label in objects])
        for p in (points, aligned)
    ]
    kept = _draw(len(points), max_points, folder.name)
    return dict(
        vert=points[kept],
        aligned_vert=aligned[kept],
        sem_label=semantic[kept].astype(np.uint32),
        ins_label=instance[kept].astype(np.uint32),
        bbox=boxes[0].reshape(-1, 8),
        aligned_bbox=boxes[1].reshape(-1, 8),
    )


def files_of(folder: Path) -> list[Path]:
    """Return a scan's mesh, segments, objects and alignment."""
    scene = folder.name
    objects = next(p for name in OBJECTS if (p := folder / name.format(scene)).is_file())
    segments = folder / f'{scene}_vh_clean_2.0.010000.segs.json'
    return [folder / f'{scene}_vh_clean_2.ply', segments, objects, folder / f'{scene}.txt']


def _box(points: np.ndarray, label: int, number: int) -> list[float]:
    low, high = points.min(axis=0).astype(np.float64), points.max(axis=0).astype(np.float64)
    return [*(low + high) / 2, *(high - low), label, number]


def _draw(count: int, most: int, scene: str) -> np.ndarray:
    """Indices of the points to keep; the scan's name is the seed, whatever the order."""
    if count <= most:
        return np.arange(count)
    seed = int.from_bytes(hashlib.sha256(scene.encode()).digest()[:8], 'little')
    return np.sort(np.random.default_rng(seed).choice(count, most, replace=False))


def _source_of(folder: Path, ids: Mapping[str, int], max_points: int) -> str:
    """A hash of what goes in: names and sizes of files, the table of labels, the limit."""
    digest = hashlib.sha256(f'{max_points} {json.dumps(sorted(ids.items()))}'.encode())
    for path in files_of(folder):
        digest.update(f'{path.name} {path.stat().st_size}\n'.encode())
    return digest.hexdigest()


def _is_whole(out: Path, scene: str, note: dict, source: str) -> bool:
    files = {kind: _file(out, scene, kind) for kind in KINDS}
    return (
        note['source'] == source
        and all(path.is_file() for path in files.values())
        and {kind: _hash(path) for kind, path in files.items()} == note['files']
    )


def _hash(path: Path) -> str:
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def _file(out: Path, scene: str, kind: str) -> Path:
    return out / f'{scene}_{kind}.npy'


def _note_of(out: Path, scene: str) -> Path:
    return out / NOTES / f'{scene}.json'


if __name__ == '__main__':
    run_tool(main)
