"""Turn ScanNet's scans into the arrays that SQA3D's models are trained on.

    python tools/rooms/prepare_scannet.py data/scannet/scans \\
        data/scannet/scannet_data --labels data/scannet/scannetv2-labels.combined.tsv
        --workers 8

Of each scan it needs {scan}_vh_clean_2.ply, {scan}_vh_clean_2.0.010000.segs.json,
{scan}.aggregation.json and {scan}.txt. A killed run goes on where it stopped when it is
started again: files are written whole or not at all, and a note is written behind those
of a scan. The layout is that of ScanRefer, ScanQA and SQA3D, so that files made by
either are read alike.
"""

import csv
import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from lm4ve.errors import UserError
from lm4ve.files import replacing, storage_error_behind, write_json
from lm4ve.runner.command_line import build_parser, run_tool
from lm4ve.tasks.rooms.datasets.scannet import NO_OBJECTS
from lm4ve.tasks.rooms.datasets.scene_files import read_alignment, read_points

#: A folder beside the arrays, with a note for each scan that is done: what it was made
#: of.
NOTES = '.prepared'
#: What may become of a scan.
KINDS = ('made', 'done_before', 'skipped')


def main(argv: Sequence[str] | None = None) -> None:
    parser = build_parser(__doc__, {})
    add = parser.add_argument
    add('scans', type=Path, help="ScanNet's folder with a folder for each scan")
    add('out', type=Path, help='the folder to write arrays to (scannet_data)')
    add('--labels', type=Path, required=True, help='scannetv2-labels.combined.tsv')
    add('--names', type=Path, help='a list of scans, a name a line; default: all')
    add('--max-points', type=int, default=50_000, help='of a scan; default: 50,000')
    add('--workers', type=int, default=1)
    add(
        '--on-corrupt',
        choices=('skip', 'refuse'),
        default='skip',
        help='for damaged scans',
    )
    args = parser.parse_args(argv)
    folders = scan_folders(args.scans, args.names)
    if any(args.out.glob('*.npy')) and not (args.out / NOTES).is_dir():
        raise UserError(f"'{args.out}' holds arrays that another program wrote.")
    ids = read_labels(args.labels)
    work = partial(prepare_scan, args.out, ids, args.max_points, args.on_corrupt)
    if args.workers == 1:
        outcomes = [work(folder) for folder in folders]
    else:
        with ProcessPoolExecutor(args.workers) as pool:
            outcomes = list(pool.map(work, folders))
    kinds = [kind for kind, _ in outcomes]
    summary: dict = {kind: kinds.count(kind) for kind in KINDS}
    errors = [error for kind, error in outcomes if kind == 'skipped']
    if len(errors) == len(outcomes):
        raise UserError(
            f'None of the {len(outcomes)} scans is usable. The first: {errors[:1]}'
        )
    summary['examples'] = errors[:5]
    print(json.dumps(summary, indent=2))


def scan_folders(scans: Path, names: Path | None) -> list[Path]:
    """Return the folders of the scans that a list names; without a list, all."""
    if names is not None:
        return [scans / Path(name).name for name in names.read_text().split()]
    folders = [path for path in scans.iterdir() if path.is_dir()]
    return sorted(folder for folder in folders if not folder.name.startswith('.'))


def read_labels(path: Path) -> dict[str, int]:
    """Return the NYU40 id of each category."""
    with open(path, encoding='utf-8', newline='') as file:
        rows = csv.DictReader(file, delimiter='\t')
        return {row['raw_category']: int(row['nyu40id']) for row in rows}


def prepare_scan(
    out: Path, ids: Mapping[str, int], max_points: int, on_corrupt: str, folder: Path
) -> tuple[str, str]:
    """Prepare one scan: return 'made', 'done_before' or 'skipped', and the error's words."""
    note = out / NOTES / f'{folder.name}.json'
    try:
        sizes = [(path.name, path.stat().st_size) for path in files_of(folder)]
        inputs = repr((sizes, max_points, sorted(ids.items())))
        source = hashlib.sha256(inputs.encode()).hexdigest()
        if note.is_file() and json.loads(note.read_text()) == source:
            return 'done_before', ''
        arrays = arrays_of(folder, ids, max_points)
    except (ValueError, LookupError, OSError) as e:
        if storage_error_behind(e) is not None:
            raise
        if on_corrupt == 'refuse':
            raise UserError(f"The scan '{folder}' cannot be prepared: {e!r}") from e
        return 'skipped', f'{folder.name}: {e!r}'
    note.parent.mkdir(parents=True, exist_ok=True)
    note.unlink(missing_ok=True)
    for kind, array in arrays.items():
        with replacing(out / f'{folder.name}_{kind}.npy') as beside:
            np.save(beside, array, allow_pickle=False)
    write_json(source, note)
    return 'made', ''


def arrays_of(
    folder: Path, ids: Mapping[str, int], max_points: int
) -> dict[str, np.ndarray]:
    """Compute the arrays of one scan: V vertices, of which P are kept, and K objects.

    Returns:
        dict[str, np.ndarray]: ``vert`` and ``aligned_vert``, float32 ``[P, 6]``
        (coordinates in meters, of the second aligned with the room; colors from 0 to
        255); ``sem_label`` and ``ins_label``, uint32 ``[P]`` (NYU40 id, object + 1; 0
        where nothing is annotated); and ``aligned_bbox``, float64 ``[K, 8]`` (the boxes
        around all vertices of an object: center, size, NYU40 id, object; none of walls
        and floors).

    Raises:
        ValueError, LookupError: A file is damaged, or the files are not of one mesh.

    Source:
        ScanRefer's ``load_scannet_data.py`` and ``batch_load_scannet_data.py``, without
        normals.
    """
    mesh, segs, aggregation, text = files_of(folder)
    points = read_points(mesh)
    segment_of = np.array(json.loads(segs.read_text())['segIndices'])
    if segment_of.shape != (len(points),) or segment_of.dtype.kind != 'i':
        raise ValueError(f'{segs.name} and {mesh.name} are not of one mesh')
    semantic = np.zeros(len(points), np.int64)
    instance = np.zeros(len(points), np.int64)
    for group in json.loads(aggregation.read_text())['segGroups']:
        if not np.isin(group['segments'], segment_of).all():
            raise ValueError(f'{aggregation.name} and {segs.name} are not of one mesh')
        of_group = np.isin(segment_of, group['segments'])
        semantic[of_group] = ids[group['label']]
        instance[of_group] = int(group['objectId']) + 1
    alignment = read_alignment(text)
    turn = alignment[:3, :3]
    shift = alignment[:3, 3]
    aligned = points.copy()
    aligned[:, :3] = points[:, :3].astype(np.float64) @ turn.T + shift
    boxes = boxes_of(aligned, semantic, instance)
    # The scan's name is the seed, whatever the order.
    seed = int.from_bytes(hashlib.sha256(folder.name.encode()).digest()[:8], 'little')
    rng = np.random.default_rng(seed)
    count = min(len(points), max_points)
    kept = np.sort(rng.choice(len(points), count, replace=False))
    return dict(
        vert=points[kept],
        aligned_vert=aligned[kept],
        aligned_bbox=boxes,
        sem_label=np.uint32(semantic[kept]),
        ins_label=np.uint32(instance[kept]),
    )


def boxes_of(
    points: np.ndarray, semantic: np.ndarray, instance: np.ndarray
) -> np.ndarray:
    """Return the boxes around objects, ``[K, 8]``: see :func:`arrays_of`."""
    boxes = []
    for number in np.unique(instance[instance > 0]):
        of_object = instance == number
        label = semantic[of_object][0]
        if label in NO_OBJECTS:
            continue
        xyz = points[of_object, :3].astype(np.float64)
        low = xyz.min(axis=0)
        high = xyz.max(axis=0)
        boxes.append([*(low + high) / 2, *(high - low), label, number - 1])
    return np.array(boxes, np.float64).reshape(-1, 8)


def files_of(folder: Path) -> list[Path]:
    """Return a scan's mesh, segments, objects and alignment."""
    start = str(folder / folder.name)
    # The second is of the finer mesh; some copies of the data have it alone.
    objects = Path(f'{start}.aggregation.json')
    if not objects.is_file():
        objects = Path(f'{start}_vh_clean.aggregation.json')
    return [
        Path(f'{start}_vh_clean_2.ply'),
        Path(f'{start}_vh_clean_2.0.010000.segs.json'),
        objects,
        Path(f'{start}.txt'),
    ]


if __name__ == '__main__':
    run_tool(main)
