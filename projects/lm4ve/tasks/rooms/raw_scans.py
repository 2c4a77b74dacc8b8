"""ScanNet's own files of one scan: mesh, segments, annotated objects, alignment.

Every file is compared with the others before anything is computed: segments that do not
belong to the mesh would label other places, which no training would notice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lm4ve.errors import UserError, brief
from lm4ve.tasks.base.language.json_files import read_entries, read_json, read_rows
from lm4ve.tasks.base.mesh_files import read_ply
from lm4ve.tasks.rooms.datasets.scene_files import DamagedScene, read_alignment

#: The columns of a vertex that a mesh must have.
COLUMNS = ('x', 'y', 'z', 'red', 'green', 'blue')
MESH = '{scene}_vh_clean_2.ply'
SEGMENTS = '{scene}_vh_clean_2.0.010000.segs.json'
#: The first is of the mesh above; the second names its objects for the finer mesh, and some
#: copies of the data have it alone.
OBJECTS = ('{scene}.aggregation.json', '{scene}_vh_clean.aggregation.json')
ALIGNMENT = '{scene}.txt'
_AGAIN = 'Fix: fetch the file again, or leave the scene out.'


class ScanError(UserError):
    """One scan cannot be prepared; ``kind`` groups such errors in counts.

    Worker processes rebuild errors from their message alone, so the kind is kept beside it.
    """

    def __init__(self, message: str, kind: str = 'unreadable') -> None:
        super().__init__(message)
        self.kind = kind

    def __reduce__(self):
        return type(self), (str(self), self.kind)


@dataclass
class RawObject:
    """One annotated object of a scan.

    Attributes:
        object_id (int): As ScanNet counts, from 0.
        label (str): Its name, in ScanNet's words ('office chair').
        segments (np.ndarray): int64 ``[S]``, ids of its segments.
    """

    object_id: int
    label: str
    segments: np.ndarray


@dataclass
class RawScan:
    """One scan with V vertices, as ScanNet gives it.

    Attributes:
        vertices (np.ndarray): float64 ``[V, 6]``, coordinates in meters (not aligned with
            the room) and colors from 0 to 255.
        triangles (np.ndarray): int64 ``[T, 3]``.
        segments (np.ndarray): int64 ``[V]``, the id of the segment of each vertex.
        objects (list[RawObject]): What people annotated.
        alignment (np.ndarray): float64 ``[4, 4]``, from the scan's frame to one whose axes
            are those of the room.
    """

    vertices: np.ndarray
    triangles: np.ndarray
    segments: np.ndarray
    objects: list[RawObject]
    alignment: np.ndarray


def files_of(folder: str | Path) -> list[Path]:
    """Return the files of a scan that are read: mesh, segments, objects, alignment.

    Args:
        folder (str | Path): ``scans/{scene}``; its name is the scan's.

    Raises:
        ScanError: One is missing.
    """
    folder = Path(folder)
    found = []
    for names in ((MESH,), (SEGMENTS,), OBJECTS, (ALIGNMENT,)):
        paths = [folder / name.format(scene=folder.name) for name in names]
        path = next((p for p in paths if p.is_file()), None)
        if path is None:
            raise ScanError(
                f"'{paths[0]}' is missing. Expected the files of ScanNet v2: "
                f'{", ".join(n.format(scene=folder.name) for n in (MESH, SEGMENTS, OBJECTS[0]))} '
                f'and {folder.name}.txt. Fix: fetch them; scans of the test split have no objects.',
                'missing file',
            )
        found.append(path)
    return found


def read_scan(folder: str | Path) -> RawScan:
    """Read a scan and compare its files with each other.

    Args:
        folder (str | Path): ``scans/{scene}``.

    Raises:
        ScanError: A file is missing, damaged, or does not belong to the others.
    """
    mesh, segs, objects, alignment = files_of(folder)
    vertices, triangles = read_mesh(mesh)
    segments = read_segments(segs)
    if len(segments) != len(vertices):
        raise ScanError(
            f"'{segs}' has segments of {len(segments):,} vertices, '{mesh.name}' has "
            f'{len(vertices):,}. Fix: take both of one mesh ({SEGMENTS.format(scene="...")}).',
            'files of two meshes',
        )
    found = read_objects(objects)
    known = np.unique(segments)
    for item in found:
        unknown = np.setdiff1d(item.segments, known)
        if len(unknown):
            raise ScanError(
                f"'{objects}': the object {item.object_id} ({brief(item.label)}) has the segment "
                f"{unknown[0]}, which '{segs.name}' lacks. Fix: take both of one mesh "
                f'({OBJECTS[0].format(scene="...")} with {SEGMENTS.format(scene="...")}).',
                'files of two meshes',
            )
    try:
        return RawScan(vertices, triangles, segments, found, read_alignment(str(alignment)))
    except DamagedScene as e:
        raise ScanError(f'The scan {mesh.parent.name} {e}. {_AGAIN}', 'damaged alignment') from e


def read_mesh(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a colored mesh.

    Args:
        path (str | Path): A .ply file.

    Returns:
        tuple[np.ndarray, np.ndarray]: float64 ``[V, 6]`` and int64 ``[T, 3]``, as in
        :class:`RawScan`.

    Raises:
        ScanError: It is cut or damaged, has no faces or no colors from 0 to 255, or
            coordinates that are not finite.
    """
    try:
        with np.errstate(all='ignore'):
            vertices, triangles = read_ply(path, COLUMNS)
    except OSError as e:
        raise ScanError(f"'{path}' cannot be read: {e.strerror}. {_AGAIN}", 'missing file') from e
    except (ValueError, TypeError, LookupError, OverflowError, MemoryError) as e:
        raise ScanError(f"'{path}' is damaged: {e}. {_AGAIN}", 'damaged mesh') from e
    if not len(vertices) or not len(triangles):
        raise ScanError(
            f"'{path}' has {len(vertices):,} vertices and {len(triangles):,} triangles, expected "
            f'a mesh. {_AGAIN}',
            'damaged mesh',
        )
    bad = int((~np.isfinite(vertices[:, :3])).any(axis=1).sum())
    if bad:
        raise ScanError(
            f"'{path}' has {bad} of {len(vertices)} vertices with NaN or infinite coordinates. "
            f'{_AGAIN}',
            'damaged mesh',
        )
    colors = vertices[:, 3:]
    if not (colors.min() >= 0 and colors.max() <= 255):
        raise ScanError(
            f"'{path}' has colors from {colors.min():g} to {colors.max():g}, expected 0 to 255. "
            f'{_AGAIN}',
            'damaged mesh',
        )
    return vertices, triangles


def read_segments(path: str | Path) -> np.ndarray:
    """Read the segment of each vertex, int64 ``[V]``, from a ``.segs.json``.

    Raises:
        ScanError: It is damaged or a file of another kind.
    """
    content = _json(path)
    if 'segIndices' not in content:
        raise ScanError(
            f"'{path}' has no list 'segIndices' (its keys: {brief(', '.join(content)) or 'none'}). "
            'Fix: name a file of segments (.segs.json).',
            'damaged annotation',
        )
    return _whole_numbers(content['segIndices'], f"'{path}': segIndices")


def read_objects(path: str | Path) -> list[RawObject]:
    """Read the annotated objects of an ``.aggregation.json``.

    Raises:
        ScanError: It is damaged or a file of another kind.
    """
    content = _json(path)
    try:
        groups = read_entries(content, 'segGroups', path, 'scan')
    except UserError as e:
        raise ScanError(str(e), 'damaged annotation') from e
    found = []
    for number, group in enumerate(groups):
        where = f"'{path}': segGroups[{number}]"
        object_id, label = group.get('objectId'), group.get('label')
        if type(object_id) is not int or object_id < 0 or not isinstance(label, str):
            raise ScanError(
                f'{where} has objectId={brief(object_id)} and label={brief(label)}. Expected a '
                f'number from 0 and a text. {_AGAIN}',
                'damaged annotation',
            )
        segments = _whole_numbers(group.get('segments'), f'{where}: segments')
        found.append(RawObject(object_id, label, segments))
    return found


def read_label_ids(path: str | Path) -> dict[str, int]:
    """Read which NYU40 id each of ScanNet's names has.

    Args:
        path (str | Path): ``scannetv2-labels.combined.tsv``.

    Raises:
        UserError: It is missing, damaged or another table.
    """
    ids: dict[str, int] = {}
    for where, row in read_rows(path, 'labels'):
        name, number = row.get('raw_category'), row.get('nyu40id')
        if name is None or number is None or not number.strip().isdecimal():
            raise UserError(
                f"labels: {where} of '{path}' has raw_category={brief(name)} and "
                f"nyu40id={brief(number)}. Expected a name and a number. Fix: name ScanNet's "
                'scannetv2-labels.combined.tsv.'
            )
        ids[name] = int(number)
    if not ids:
        raise UserError(
            f"labels: '{path}' has no rows. Fix: name ScanNet's scannetv2-labels.combined.tsv."
        )
    return ids


def nyu40_of(objects: Sequence[RawObject], ids: Mapping[str, int], where: str) -> np.ndarray:
    """Return the NYU40 id of each object, int64 ``[O]``.

    Raises:
        ScanError: The table of labels lacks a name.
    """
    unknown = sorted({o.label for o in objects} - ids.keys())
    if unknown:
        raise ScanError(
            f'{where}: the label {brief(unknown[0])} of an object is not in the table of labels. '
            'Fix: use scannetv2-labels.combined.tsv of ScanNet v2.',
            'unknown label',
        )
    return np.array([ids[o.label] for o in objects], dtype=np.int64)


def _bytes(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as e:
        raise ScanError(f"'{path}' cannot be read: {e.strerror}. {_AGAIN}", 'missing file') from e


def _json(path: str | Path) -> dict:
    try:
        return read_json(path, dict, 'scan')
    except UserError as e:
        raise ScanError(str(e), 'damaged annotation') from e


def _whole_numbers(values: object, where: str) -> np.ndarray:
    if isinstance(values, list) and all(type(v) is int and 0 <= v < 2**31 for v in values):
        return np.array(values, dtype=np.int64)
    raise ScanError(
        f'{where} must be a list of whole numbers from 0. {_AGAIN}', 'damaged annotation'
    )
