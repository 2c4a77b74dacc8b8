"""From ScanNet's own files to the arrays of rooms that ScanQA and SQA3D train on.

The layout is the one of their preprocessing, so that files made by either are read alike.
Scans are prepared in processes; a killed run goes on where it stopped, and every array is
read back before its scan counts as done.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np

from lm4ve.errors import UserError, listing
from lm4ve.files import clear_left_behind, replacing, whole_lines, write_json
from lm4ve.tasks.base.integrity import SkippedFiles, check_policy
from lm4ve.tasks.base.parallel_map import exclusive, parallel_map
from lm4ve.tasks.rooms.raw_scans import (
    RawScan,
    ScanError,
    files_of,
    nyu40_of,
    read_label_ids,
    read_scan,
)
from lm4ve.tasks.rooms.scannet import NO_OBJECTS

#: The arrays of a scan; its files are ``{scene}_{kind}.npy``.
KINDS = ('vert', 'aligned_vert', 'sem_label', 'ins_label', 'bbox', 'aligned_bbox')
#: Points of a scan that are kept, as in ScanRefer, ScanQA and SQA3D.
MAX_POINTS = 50_000
#: A folder beside the arrays, with what is known of each scan that is done.
_NOTES = '.prepared'


def prepare_scans(
    scans: str | Path,
    out: str | Path,
    labels: str | Path,
    names: str | Path | None = None,
    max_points: int = MAX_POINTS,
    workers: int = 1,
    on_corrupt: str = 'skip',
    quiet: bool = False,
) -> dict:
    """Write the arrays of scans, except of those that are done.

    Args:
        scans (str | Path): ScanNet's folder with one folder a scan.
        out (str | Path): ``scannet_data``, the folder for the arrays.
        labels (str | Path): ``scannetv2-labels.combined.tsv``.
        names (str | Path, optional): A list of scans, a name a line
            (``scannetv2_train.txt``); default: all in ``scans``.
        max_points (int): Of a larger scan so many points are drawn, the same ones each time.
        workers (int): Processes.
        on_corrupt (str): 'skip' leaves out scans that cannot be prepared and counts them by
            kind; 'refuse' raises at the first.
        quiet (bool): Show no progress bar.

    Returns:
        dict: ``scans`` (how many are there now), ``done_before`` (those of an earlier run),
        ``without_objects`` (no annotated object but walls, floors and ceilings), ``skipped``
        (kind -> count) and ``examples`` (messages).

    Raises:
        UserError: Another run works on ``out``; it holds arrays that this function did not
            write; nothing is usable; with 'refuse', the first scan that is not.
    """
    check_policy(on_corrupt, 'on_corrupt')
    if max_points < 1 or workers < 1:
        raise UserError(f'{max_points=} and {workers=} must be at least 1.')
    folders, out = _folders(Path(scans), names), Path(out)
    ids, skipped, notes = read_label_ids(labels), SkippedFiles(on_corrupt), []
    with exclusive(out):
        out.mkdir(parents=True, exist_ok=True)
        for folder in (out, out / _NOTES):
            clear_left_behind(folder)
        _refuse_foreign(out, [f.name for f in folders])
        work = partial(_prepare, out, ids, max_points)
        with closing(parallel_map(work, folders, 'preparing scans', workers, quiet)) as done:
            for found in done:
                if isinstance(found, ScanError):
                    skipped.add(found.kind, found)
                else:
                    notes.append(found)
    if not notes:
        raise UserError(
            f'None of the {len(folders)} scans is usable; {json.dumps(skipped.counts)}. '
            f'The first: {skipped.examples[0]}'
        )
    skipped.warn('prepare', len(folders))
    return dict(
        scans=len(notes),
        done_before=sum(n['done_before'] for n in notes),
        without_objects=sum(not n['objects'] for n in notes),
        skipped=dict(skipped.counts),
        examples=skipped.examples,
    )


def arrays_of(
    scan: RawScan, ids: Mapping[str, int], max_points: int = MAX_POINTS, scene: str = ''
) -> dict[str, np.ndarray]:
    """Compute the arrays of one scan: V vertices, of which P are kept, and K objects.

    Args:
        scan (RawScan): The scan.
        ids (Mapping[str, int]): ScanNet's names of objects -> NYU40 ids.
        max_points (int): The most points that are kept.
        scene (str): The scan's name, from which the draw of points follows.

    Returns:
        dict[str, np.ndarray]: By :data:`KINDS`:

        - ``vert`` and ``aligned_vert``, float32 ``[P, 9]``: coordinates in meters, colors
          from 0 to 255, normals. Only the coordinates of the second are aligned.
        - ``sem_label`` and ``ins_label``, uint32 ``[P]``: NYU40 id, and object + 1; 0 where
          nothing is annotated.
        - ``bbox`` and ``aligned_bbox``, float64 ``[K, 8]``: the boxes around all vertices of
          an object, as center, size, NYU40 id and object. Walls, floors and ceilings
          have none, nor have objects whose vertices others took.

    Raises:
        ScanError: A name is not among ``ids``.

    Source:
        ScanRefer's ``load_scannet_data.py`` and ``batch_load_scannet_data.py``. A normal is
        the mean of all triangles at a vertex; there it is of at most three of them.
    """
    points = np.hstack([scan.vertices, vertex_normals(scan.vertices[:, :3], scan.triangles)])
    points = points.astype(np.float32)
    aligned = points.copy()
    turn, shift = scan.alignment[:3, :3], scan.alignment[:3, 3]
    aligned[:, :3] = points[:, :3].astype(np.float64) @ turn.T + shift
    semantic, instance = _labels(scan, ids, scene)
    objects = [(int(i), int(semantic[instance == i][0])) for i in np.unique(instance[instance > 0])]
    objects = [(i, label) for i, label in objects if label not in NO_OBJECTS]
    boxes = [
        np.array([_box(p[instance == i, :3], label, i - 1) for i, label in objects])
        for p in (points, aligned)
    ]
    kept = _draw(len(points), max_points, scene)
    return dict(
        vert=points[kept],
        aligned_vert=aligned[kept],
        sem_label=semantic[kept].astype(np.uint32),
        ins_label=instance[kept].astype(np.uint32),
        bbox=boxes[0].reshape(-1, 8),
        aligned_bbox=boxes[1].reshape(-1, 8),
    )


def vertex_normals(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Return a normal of each vertex: the mean of those of its triangles, of length 1.

    Args:
        points (np.ndarray): float64 ``[V, 3]``.
        triangles (np.ndarray): int64 ``[T, 3]``.

    Returns:
        np.ndarray: float64 ``[V, 3]``; 0 where no triangle has an area.
    """
    a, b, c = points[triangles].transpose(1, 0, 2)
    flat = np.repeat(_unit(np.cross(b - a, c - a)), 3, axis=0)
    corners = triangles.reshape(-1)
    sums = [np.bincount(corners, flat[:, axis], len(points)) for axis in range(3)]
    return _unit(np.stack(sums, axis=1))


def _unit(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)


def _labels(scan: RawScan, ids: Mapping[str, int], scene: str) -> tuple[np.ndarray, np.ndarray]:
    """NYU40 id and object + 1 of every vertex; of objects that share a segment, the last."""
    segments, place = np.unique(scan.segments, return_inverse=True)
    semantic, instance = np.zeros((2, len(segments)), np.int64)
    for item, label in zip(scan.objects, nyu40_of(scan.objects, ids, scene), strict=True):
        at = np.searchsorted(segments, item.segments)
        semantic[at], instance[at] = label, item.object_id + 1
    return semantic[place], instance[place]


def _box(points: np.ndarray, label: int, number: int) -> list[float]:
    low, high = points.min(axis=0).astype(np.float64), points.max(axis=0).astype(np.float64)
    return [*(low + high) / 2, *(high - low), label, number]


def _draw(count: int, most: int, scene: str) -> np.ndarray:
    """Indices of the points to keep; the scan's name is the seed, whatever the order."""
    if count <= most:
        return np.arange(count)
    seed = int.from_bytes(hashlib.sha256(scene.encode()).digest()[:8], 'little')
    return np.sort(np.random.default_rng(seed).choice(count, most, replace=False))


# ------------------------------------------------------------------------ one scan
def _prepare(out: Path, ids: Mapping[str, int], max_points: int, folder: Path) -> dict | ScanError:
    """Prepare a scan unless it is done; an error is returned, since processes end by raising."""
    scene = folder.name
    try:
        source = _source(folder, ids, max_points)
        note = _finished(out, scene, source)
        if note is not None:
            return dict(note, done_before=True)
        arrays = arrays_of(read_scan(folder), ids, max_points, scene)
    except ScanError as e:
        return e
    path = _note_of(out, scene)
    write_json(dict(source=source, files={}, objects=0), path)  # whose the arrays are
    files = {kind: _write(arrays[kind], _file(out, scene, kind)) for kind in KINDS}
    note = dict(source=source, files=files, objects=len(arrays['bbox']))
    write_json(note, path)
    return dict(note, done_before=False)


def _source(folder: Path, ids: Mapping[str, int], max_points: int) -> str:
    """A hash of what goes in: names and sizes of files, the table of labels, the limit."""
    digest = hashlib.sha256(f'{max_points} {json.dumps(sorted(ids.items()))}'.encode())
    for path in files_of(folder):
        digest.update(f'{path.name} {path.stat().st_size}\n'.encode())
    return digest.hexdigest()


def _finished(out: Path, scene: str, source: str) -> dict | None:
    """The note of a scan, if its arrays are what a run with this source wrote."""
    try:
        note = json.loads(_note_of(out, scene).read_bytes())
        if note['source'] != source or set(note['files']) != set(KINDS):
            return None
        hashes = {kind: _hash(_file(out, scene, kind)) for kind in KINDS}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return note if hashes == note['files'] else None


def _write(array: np.ndarray, path: Path) -> str:
    """Write an array, read it back, and return the hash of its file.

    Raises:
        UserError: It cannot be written, or comes back as another.
    """
    with replacing(path) as beside:
        np.save(beside, array, allow_pickle=False)
    back = np.load(path, allow_pickle=False)
    if back.dtype != array.dtype or not np.array_equal(back, array):
        raise UserError(
            f"'{path}' does not hold what was written to it. Fix: check the disk, and run again."
        )
    return _hash(path)


def _hash(path: Path) -> str:
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def _file(out: Path, scene: str, kind: str) -> Path:
    return out / f'{scene}_{kind}.npy'


def _note_of(out: Path, scene: str) -> Path:
    return out / _NOTES / f'{scene}.json'


# ------------------------------------------------------------------------ all scans
def _folders(scans: Path, names: str | Path | None) -> list[Path]:
    """The folders of the scans that are asked for."""
    if not scans.is_dir():
        raise UserError(f"The folder of scans '{scans}' does not exist. Fix: correct the path.")
    if names is not None:
        try:
            lines = whole_lines(Path(names).read_bytes(), names)
        except OSError as e:
            raise UserError(f"'{names}' cannot be read: {e.strerror}. Fix: correct it.") from e
        wanted = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
        if bad := [name for name in wanted if Path(name).name != name]:
            raise UserError(f"'{names}' has {bad[0]!r}, expected a scan's name a line.")
        found = [scans / name for name in wanted]
    else:
        found = sorted(p for p in scans.iterdir() if p.is_dir() and not p.name.startswith('.'))
    if not found:
        raise UserError(f"There are no scans in '{names or scans}'. Fix: correct the path.")
    return found


def _refuse_foreign(out: Path, scenes: Sequence[str]) -> None:
    """Refuse to replace arrays that were not written here: they hold other points.

    Raises:
        UserError: There are some.
    """
    foreign = [s for s in scenes if not _note_of(out, s).is_file() and _has_arrays(out, s)]
    if foreign:
        raise UserError(
            f"'{out}' holds arrays of {len(foreign)} scans that another program wrote "
            f'({listing(foreign, 3)}). They can be trained on as they are. Fix: name another '
            'output, or move them away.'
        )


def _has_arrays(out: Path, scene: str) -> bool:
    return any(_file(out, scene, kind).exists() for kind in KINDS)
