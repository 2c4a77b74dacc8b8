"""Turn ScanNet's scans into the arrays that SQA3D's models are trained on.

    python tools/vision_language/prepare_scannet.py data/scannet/scans \\
        data/scannet/scannet_data --labels data/scannet/scannetv2-labels.combined.tsv --workers 8

Of each scan it needs {scan}_vh_clean_2.ply, {scan}_vh_clean_2.0.010000.segs.json,
{scan}.aggregation.json and {scan}.txt. A killed run goes on where it stopped when it is
started again: files are written whole or not at all, and a note is written behind those of a scan.
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

from lm4ve.errors import UserError, check
from lm4ve.files import replacing, write_json
from lm4ve.runner.command_line import run_tool
from lm4ve.tasks.rooms.datasets.scene_files import read_alignment, read_points
from lm4ve.tasks.rooms.scannet import NO_OBJECTS

#: The arrays of a scan; its files are ``{scene}_{kind}.npy``.
KINDS = ('vert', 'aligned_vert', 'sem_label', 'ins_label', 'aligned_bbox')
#: A folder beside the arrays, with a note for each scan that is done: what it was made of.
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
    text = 'leave scans out that cannot be read and count them, or stop'
    add('--on-corrupt', choices=('skip', 'refuse'), default='skip', help=text)
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
        UserError: ``out`` holds arrays that another program wrote; no scan is usable; with
            'refuse', the first scan that is not.
    """
    check('--max-points', max_points, least=1)
    if names is None:
        folders = sorted(p for p in scans.iterdir() if p.is_dir() and p.name[0] != '.')
    else:
        folders = [scans / Path(name).name for name in names.read_text().split()]
    if any(out.glob('*.npy')) and not (out / NOTES).is_dir():
        raise UserError(f"'{out}' holds arrays that another program wrote.")
    (out / NOTES).mkdir(parents=True, exist_ok=True)
    with open(labels, encoding='utf-8', newline='') as file:
        rows = csv.DictReader(file, delimiter='\t')
        ids = {row['raw_category']: int(row['nyu40id']) for row in rows}
    work = partial(prepare_scan, out, ids, max_points, on_corrupt)
    if workers == 1:
        found = list(map(work, folders))
    else:
        with ProcessPoolExecutor(workers) as pool:
            found = list(pool.map(work, folders))
    counts = Counter(kind for kind, _ in found)
    errors = [error for kind, error in found if kind == 'skipped']
    if len(errors) == len(found):
        raise UserError(f'None of the {len(found)} scans is usable. The first: {errors[:1]}')
    return dict(made=0, done_before=0, skipped=0) | counts | dict(examples=errors[:5])


def prepare_scan(
    out: Path, ids: Mapping[str, int], max_points: int, on_corrupt: str, folder: Path
) -> tuple[str, str]:
    """Prepare one scan: return 'made', 'done_before' or 'skipped', and the error's words."""
    note = out / NOTES / f'{folder.name}.json'
    files = {kind: out / f'{folder.name}_{kind}.npy' for kind in KINDS}
    try:
        sizes = [(path.name, path.stat().st_size) for path in files_of(folder)]
        source = hashlib.sha256(repr((sizes, max_points, sorted(ids.items()))).encode()).hexdigest()
        done = note.is_file() and json.loads(note.read_text()) == source
        if done and all(path.is_file() for path in files.values()):
            return 'done_before', ''
        arrays = arrays_of(folder, ids, max_points)
    except (ValueError, LookupError, OSError, StopIteration) as e:
        if on_corrupt == 'refuse':
            raise UserError(f"The scan '{folder}' cannot be prepared: {e!r}") from e
        return 'skipped', f'{folder.name}: {e!r}'
    note.unlink(missing_ok=True)
    for kind, path in files.items():
        with replacing(path) as beside:
            np.save(beside, arrays[kind], allow_pickle=False)
    write_json(source, note)
    return 'made', ''


def arrays_of(folder: Path, ids: Mapping[str, int], max_points: int) -> dict[str, np.ndarray]:
    """Compute the arrays of one scan: V vertices, of which P are kept, and K objects.

    Returns:
        dict[str, np.ndarray]: ``vert`` and ``aligned_vert``, float32 ``[P, 6]`` (coordinates in
        meters, of the second aligned with the room; colors from 0 to 255); ``sem_label`` and
        ``ins_label``, uint32 ``[P]`` (NYU40 id, object + 1; 0 where nothing is annotated); and
        ``aligned_bbox``, float64 ``[K, 8]`` (the boxes around all vertices of an object: center,
        size, NYU40 id, object; none of walls and floors).

    Raises:
        ValueError, LookupError: A file is damaged, or the files are not of one mesh.

    Source:
        ScanRefer's ``load_scannet_data.py`` and ``batch_load_scannet_data.py``, without normals.
    """
    mesh, segs, aggregation, text = files_of(folder)
    points = read_points(mesh)
    segment_of = np.array(json.loads(segs.read_text())['segIndices'])
    if segment_of.shape != (len(points),) or segment_of.dtype.kind != 'i':
        raise ValueError(f'{segs.name} and {mesh.name} are not of one mesh')
    semantic, instance = np.zeros((2, len(points)), np.int64)
    for group in json.loads(aggregation.read_text())['segGroups']:
        if not np.isin(group['segments'], segment_of).all():
            raise ValueError(f'{aggregation.name} and {segs.name} are not of one mesh')
        at = np.isin(segment_of, group['segments'])
        semantic[at], instance[at] = ids[group['label']], int(group['objectId']) + 1

    aligned, alignment = points.copy(), read_alignment(text)
    turn, shift = alignment[:3, :3], alignment[:3, 3]
    aligned[:, :3] = points[:, :3].astype(np.float64) @ turn.T + shift
    boxes = []
    for i in np.unique(instance[instance > 0]):
        xyz, label = aligned[instance == i, :3].astype(np.float64), semantic[instance == i][0]
        low, high = xyz.min(axis=0), xyz.max(axis=0)
        if label not in NO_OBJECTS:
            boxes.append([*(low + high) / 2, *(high - low), label, i - 1])
    kept = np.arange(len(points))
    if len(kept) > max_points:
        # The scan's name is the seed, whatever the order.
        seed = int.from_bytes(hashlib.sha256(folder.name.encode()).digest()[:8], 'little')
        rng = np.random.default_rng(seed)
        kept = np.sort(rng.choice(len(points), max_points, replace=False))
    return dict(
        vert=points[kept],
        aligned_vert=aligned[kept],
        sem_label=semantic[kept].astype(np.uint32),
        ins_label=instance[kept].astype(np.uint32),
        aligned_bbox=np.array(boxes, np.float64).reshape(-1, 8),
    )


def files_of(folder: Path) -> list[Path]:
    """Return a scan's mesh, segments, objects and alignment."""
    scene = folder.name
    objects = next(p for name in OBJECTS if (p := folder / name.format(scene)).is_file())
    segments = folder / f'{scene}_vh_clean_2.0.010000.segs.json'
    return [folder / f'{scene}_vh_clean_2.ply', segments, objects, folder / f'{scene}.txt']


if __name__ == '__main__':
    run_tool(main)
