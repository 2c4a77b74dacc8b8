"""The rooms in the files of SQA3D and ScanNet as its baseline prepares them, and their data set."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dist import barrier, is_main_process
from tqdm import tqdm

from lm4ve.registry import DATASETS
from lm4ve.tasks.base.generated import write_once
from lm4ve.tasks.rooms.datasets.sqa3d import SQA3DDataset
from lm4ve.tasks.rooms.demo import rooms
from lm4ve.tasks.rooms.scannet import NYU40_IDS
from lm4ve.tasks.rooms.transforms import BlankScene

DATA_ROOT = 'data/rooms'
#: Rooms of each split.
ROOMS = dict(train=600, val=60, test=60)
#: The NYU40 ids under which the shapes go, by color and shape: furniture there.
IDS = dict(zip(rooms.NAMES, NYU40_IDS, strict=False))
#: Those of floor and walls.
FLOOR_ID, WALL_ID = 2, 1


def recipe(counts: dict[str, int]) -> dict:
    """Return all that the files depend on."""
    names = 'colors half wall away aside apart step points shapes questions kinds wordings'
    constants = {
        name: getattr(rooms, name.upper()) for name in f'{names} shares pairs turn'.split()
    }
    return dict(version=2, rooms=dict(counts), **constants)


def write_rooms(folder: str | Path, counts: dict[str, int] = ROOMS) -> Path:
    """Write the data set, as SQA3D's baseline lays out ScanNet and its questions.

    There are ``scannet_data/<room>_*.npy``, ``scans/<room>/<room>.txt``, ``objects/<room>.npy``,
    ``qa/SQA_<split>.json``, the official pair ``qa/v1_balanced_*_<split>_scannetv2.json``, and
    ``qa/answer_counter.json``. A folder that holds it already is left as it is. It appears as
    a whole, so that no other process reads a part of it.

    Args:
        folder (str | Path): Where to.
        counts (dict[str, int]): Rooms of each split.

    Returns:
        Path: ``folder``.

    Raises:
        UserError: The folder holds something else.
    """

    def write(partial: Path) -> None:
        for part in ('scannet_data', 'scans', 'objects', 'qa'):
            (partial / part).mkdir()
        first = 0
        for number, (split, count) in enumerate(counts.items()):
            made = []
            for i in tqdm(range(count), f'drawing rooms to {split}', count, disable=None):
                # Each room has a generator of its own, so that more rooms begin alike.
                rng = np.random.default_rng((number, i))
                room, name = rooms.draw_room(rng), f'scene{first + i:04d}_00'
                frame = _write_scan(partial, name, room, rng)
                made += [(name, frame, asked) for asked in room.asked]
            _write_questions(partial / 'qa', split, made, first * rooms.QUESTIONS)
            first += count

    return write_once(folder, recipe(counts), 'rooms', write)


def _write_scan(folder: Path, name: str, room: rooms.Room, rng: np.random.Generator) -> '_Frame':
    """Write a room's points and boxes as scanned, in a frame of its own, and as aligned."""
    points, parts = rooms.draw_cloud(room, rng)
    frame = _Frame(rng.uniform(-np.pi, np.pi), np.append(rng.uniform(-2, 2, 2), 0.0))
    scan = points.astype(np.float64)
    scan[:, :3] = frame.to_scan(scan[:, :3])
    scan[:, 6:9] = scan[:, 6:9] @ frame.rotation
    frame.middle = (scan[:, :3].min(axis=0) + scan[:, :3].max(axis=0)) / 2
    things = [parts == i for i in range(len(room.things))]
    ids = np.array([IDS[f'{t.color} {t.shape}'] for t in room.things] + [WALL_ID, FLOOR_ID])
    # Counted from 1; of the negative parts, the floor comes first.
    instances = np.where(parts < 0, len(things) - parts, parts + 1)
    arrays = dict(vert=scan.astype(np.float32), aligned_vert=points)
    arrays |= dict(sem_label=ids[parts].astype(np.uint32), ins_label=instances.astype(np.uint32))
    for kind, places in (('bbox', scan), ('aligned_bbox', points)):
        boxes = [(*_box(places[thing]), ids[i], i) for i, thing in enumerate(things)]
        arrays[kind] = np.array(boxes)
    for kind, array in arrays.items():
        np.save(folder / 'scannet_data' / f'{name}_{kind}.npy', array, allow_pickle=False)
    # The output of a perfect detector: center and size in meters, and the mean color around 0.
    clouds = [points[thing] for thing in things]
    features = [(*_box(x), *(x[:, 3:6].mean(axis=0) - 128) / 64) for x in clouds]
    features = np.array(features, dtype=np.float32)
    np.save(folder / 'objects' / f'{name}.npy', features, allow_pickle=False)
    (folder / 'scans' / name).mkdir()
    numbers = ' '.join(f'{x:.6f}' for x in frame.matrix.ravel())
    text = f'axisAlignment = {numbers} \nsceneType = Made of shapes\n'
    (folder / 'scans' / name / f'{name}.txt').write_text(text)
    return frame


def _box(points: np.ndarray) -> np.ndarray:
    low, high = points[:, :3].min(axis=0), points[:, :3].max(axis=0)
    return np.concatenate(((low + high) / 2, high - low))


class _Frame:
    """The frame of a scan: ``aligned = rotation @ scanned + shift``.

    Attributes:
        middle (np.ndarray): Of the scan's bounding box, from which SQA3D counts positions.
    """

    middle: np.ndarray

    def __init__(self, angle: float, shift: np.ndarray) -> None:
        self.matrix = np.eye(4)
        self.matrix[:3, :3] = rooms.turn_around_z(angle)
        self.matrix[:3, 3] = shift
        # Rounded as in the file, so that the alignment that is read is exact.
        self.matrix = np.round(self.matrix, 6)
        self.rotation = self.matrix[:3, :3]

    def to_scan(self, points: np.ndarray) -> np.ndarray:
        """Aligned ``[..., 3]`` to the scan's frame."""
        return (points - self.matrix[:3, 3]) @ self.rotation

    def annotate(self, stands: tuple[float, float], looks: int) -> dict:
        """Return the asker's position and rotation as in SQA3D's annotations."""
        x, y, _ = self.to_scan(np.array((*stands, 0.0))) - self.middle
        ahead = np.array([(0, 1, 0), (1, 0, 0), (0, -1, 0), (-1, 0, 0)][looks]) @ self.rotation
        # Without a turn the asker looks along -x, as SQA3D's code draws it. A hundredth of a
        # radian more: a quaternion and its negative are one turn, and exactly at a right angle
        # rounding alone would choose between them.
        turn = np.arctan2(-ahead[1], -ahead[0]) + 0.01
        sine, cosine = float(np.sin(turn / 2)), float(np.cos(turn / 2))
        rotation = dict(_x=0.0, _y=0.0, _z=sine, _w=cosine)
        return dict(position=dict(x=float(x), y=float(y), z=0.0), rotation=rotation)


def _write_questions(
    folder: Path, split: str, made: list[tuple[str, _Frame, dict]], first: int
) -> None:
    """Write the official pair of files, and the list that SQA3D's ScanQA code makes of it."""
    questions, annotations, rows = [], [], []
    for number, (name, frame, asked) in enumerate(made, first):
        ids = dict(scene_id=name, question_id=number)
        situation, *others = asked['situations']
        texts = dict(situation=situation, question=asked['question'])
        questions.append(dict(ids, **texts, alternative_situation=others))
        answer, pose = asked['answer'], frame.annotate(asked['stands'], asked['looks'])
        entry = dict(answer=answer, answer_confidence='yes')
        entry['answer_id'] = rooms.ANSWERS.index(answer)
        kinds = dict(question_type='N/A', answer_type='other')
        annotations.append(dict(ids, **kinds, answers=[entry], **pose))
        numbers = [*pose['position'].values(), *pose['rotation'].values()]
        rows.append(dict(ids, **texts, answers=[answer], position=numbers))
    files = {
        f'v1_balanced_questions_{split}_scannetv2': dict(questions=questions),
        f'v1_balanced_sqa_annotations_{split}_scannetv2': dict(annotations=annotations),
        f'SQA_{split}': rows,
    }
    if split == 'train':
        files['answer_counter'] = [row['answers'][0] for row in rows]
    for name, content in files.items():
        (folder / f'{name}.json').write_text(json.dumps(content))


@DATASETS.register_module()
class Rooms(SQA3DDataset):
    """Questions about rooms of colored shapes, made of primitives on first use.

    Args:
        split (str): 'train', 'val' or 'test', which share no room.
        data_root (str): Where they are; they are written there if they are not (seconds).
        rooms (dict[str, int]): Rooms of each split.
        blank_scenes (bool): Points are constant (:class:`BlankScene`). A model trained and
            tested so sees the texts only, which is the control that clouds are needed.
        **kwargs: Passed to :class:`lm4ve.tasks.rooms.SQA3DDataset`.

    Raises:
        UserError: There is no such split, or ``data_root`` holds something else.
    """

    METAINFO = dict(classes=rooms.NAMES)

    def __init__(
        self,
        split: str = 'train',
        data_root: str = DATA_ROOT,
        rooms: dict[str, int] = ROOMS,
        blank_scenes: bool = False,
        **kwargs: Any,
    ) -> None:
        if is_main_process():
            write_rooms(data_root, rooms)
        barrier()
        super().__init__(split, data_root, **kwargs)
        if blank_scenes:
            # Right before packing: all else has been done with the points.
            self.pipeline.transforms.insert(-1, BlankScene())
