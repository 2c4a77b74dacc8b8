"""What the readers of Argoverse 1 and 2 share: finding files, checking tables, filling arrays.

The data sets differ in their files, columns and maps; each has a module of its own.
The package ``av2`` is not used, since it brings kornia, numba, polars and PyAV for a
table and a JSON file; the tests compare with it.
"""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from lm4ve.errors import UserError, brief, listing
from lm4ve.tasks.motion.scene import Scene, SceneError


def one_message(read: Callable) -> Callable:
    """Let ``read(self, path)`` raise a :class:`SceneError` for whatever a damaged file raises."""

    @functools.wraps(read)
    def wrapped(self, path):
        try:
            return read(self, path)
        except UserError:
            raise
        except Exception as e:
            raise SceneError(
                f"'{path}' or its map is damaged ({type(e).__name__}). Fix: unpack it again, or "
                'remove it.',
                'unreadable',
            ) from e

    return wrapped


class ArgoverseReader:
    """Reads the sequences of one split.

    Args:
        data_dir (str | Path): Folder of the split.
        map_range (float): How far around the focal agent lanes are kept along
            both axes, meters. 142 covers any square of +-100 m in its frame.

    Attributes:
        pattern, example, content (str): Where sequences lie below the folder; a
            folder of a split and what the files are, for messages.
        numbers, texts (tuple[str, ...]): Columns that a table must have. The last two
            of ``numbers`` are the position in meters, the first of ``texts`` is the
            name of the track.
        history_steps, future_steps (int): Steps of a sequence.
    """

    pattern: str
    example: str
    content: str
    numbers: tuple[str, ...]
    texts: tuple[str, ...]
    history_steps: int
    future_steps: int

    def __init__(self, data_dir: str | Path, map_range: float = 142.0) -> None:
        self.data_dir, self.map_range = Path(data_dir), float(map_range)

    def files(self) -> list[Path]:
        """Paths of the sequences, sorted by number or name.

        Raises:
            UserError: There is none.
        """
        found = sorted(self.data_dir.glob(self.pattern), key=lambda p: (len(p.stem), p.stem))
        if not found:
            raise UserError(
                f"No {self.pattern} in '{self.data_dir}'. Fix: give the folder of one split, "
                f'for example {self.example}.'
            )
        return found

    def checked(self, table: pd.DataFrame, path: Path) -> pd.DataFrame:
        """Return a table, if it has all columns, filled.

        Raises:
            SceneError: A column is missing, or a cell is empty or not a number.
        """
        columns = [*self.numbers, *self.texts]
        missing = [c for c in columns if c not in table]
        if missing:
            raise SceneError(
                f"'{path}' lacks the column(s) {', '.join(missing)}; it has "
                f'{listing([brief(c) for c in table.columns], 12)}. Fix: give {self.content}.',
                'missing columns',
            )
        try:
            numbers = table[list(self.numbers)].apply(pd.to_numeric)
        except ValueError as e:
            raise SceneError(
                f"'{path}' has a cell that is not a number ({brief(e)}). "
                'Fix: repair or remove the file.',
                'not finite',
            ) from e
        if len(table) == 0 or table[columns].isna().any(axis=None):
            raise SceneError(
                f"'{path}' is empty or has empty or NaN cells. Fix: repair or remove the file.",
                'not finite',
            )
        return table.assign(**numbers)

    def scene(
        self,
        table: pd.DataFrame,
        path: Path,
        steps: np.ndarray,
        is_focal: np.ndarray,
        focal_mark: str,
        agent_types: np.ndarray,
        lanes_near: Callable[[np.ndarray, float], dict[str, np.ndarray]],
        **fields,
    ) -> Scene:
        """Build a scene of a checked table.

        Args:
            steps (np.ndarray): int ``[rows]``, each row's step.
            is_focal (np.ndarray): bool ``[rows]``, whether it is the focal agent's.
            focal_mark (str): What marks the focal agent, for messages.
            agent_types (np.ndarray): int ``[rows]``, indices of ``AGENT_TYPES``.
            lanes_near (callable): Takes the focal agent's position ``[2]`` and the map's
                range, and gives the scene's fields of lanes.
            **fields: The other fields of the scene.

        Raises:
            SceneError: There is not one focal agent, or :meth:`Scene.check` refuses
                the scene.
        """
        tracks, names = pd.factorize(table[self.texts[0]])
        focal = np.unique(tracks[is_focal])
        if len(focal) != 1:
            raise SceneError(
                f"'{path}' has {len(focal)} focal tracks ({focal_mark}), expected one. "
                'Fix: remove the file.',
                'no focal agent',
            )
        shape = len(names), self.history_steps + self.future_steps
        positions, valid = np.zeros((*shape, 2)), np.zeros(shape, dtype=bool)
        positions[tracks, steps] = table[list(self.numbers[-2:])].to_numpy()
        valid[tracks, steps] = True
        types = np.zeros(len(names), dtype=np.int8)
        types[tracks] = agent_types
        return Scene(
            track_ids=[str(name) for name in names],
            agent_types=types,
            positions=positions,
            valid=valid,
            focal=int(focal[0]),
            history_steps=self.history_steps,
            map_range=self.map_range,
            **lanes_near(positions[focal[0], self.history_steps - 1], self.map_range),
            **fields,
        ).check()


def boxes_near(boxes: np.ndarray, point: np.ndarray, distance: float) -> np.ndarray:
    """Indices of the boxes that meet a square.

    Args:
        boxes (np.ndarray): ``[L, 4]``, xmin, ymin, xmax, ymax, meters.
        point (np.ndarray): ``[2]``, the square's middle.
        distance (float): Half the square's side, meters.
    """
    low, high = boxes[:, :2], boxes[:, 2:]
    return np.flatnonzero(((low <= point + distance) & (high >= point - distance)).all(axis=1))
