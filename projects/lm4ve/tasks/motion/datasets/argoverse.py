"""Reader that Argoverse 1 and 2 share: from a table of one sequence to a ``Scene``.

The data sets differ in their files, columns and maps; each has a module of its own.
The package ``av2`` is not used, since it brings kornia, numba, polars and PyAV for a
table and a JSON file; the tests compare with it.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lm4ve.errors import UserError, brief
from lm4ve.tasks.motion.scene import Scene, SceneError


@dataclass
class LaneMap:
    """Lanes of a city, or around one scene.

    Attributes:
        lines (np.ndarray): float64 ``[L, 10, 2]``, meters.
        turns, intersections, controls (np.ndarray): ``[L]``, as in
            :class:`lm4ve.tasks.motion.scene.Scene`.
        boxes (np.ndarray): float64 ``[L, 4]``, xmin, ymin, xmax, ymax of the lanes' areas.
    """

    lines: np.ndarray
    turns: np.ndarray
    intersections: np.ndarray
    controls: np.ndarray
    boxes: np.ndarray

    def near(self, point: np.ndarray, distance: float) -> dict[str, np.ndarray]:
        """Return the lanes whose box meets a square, as fields of a scene.

        Args:
            point (np.ndarray): ``[2]``, the square's middle.
            distance (float): Half the square's side, meters.
        """
        low, high = self.boxes[:, :2], self.boxes[:, 2:]
        # Negated, so that a lane whose box is unknown (NaN) counts as near.
        near = ~((low > point + distance) | (high < point - distance)).any(axis=1)
        return dict(
            lanes=self.lines[near],
            lane_turns=self.turns[near],
            lane_intersections=self.intersections[near],
            lane_controls=self.controls[near],
        )


class ArgoverseReader(ABC):
    """Read the sequences of one split.

    Args:
        data_dir (str | Path): Folder of the split.
        map_range (float): How far around the focal agent lanes are kept along
            both axes, meters. 142 covers any square of +-100 m in its frame.

    Attributes:
        pattern (str): Glob of the sequences below the folder.
        history_steps, future_steps (int): Steps of a sequence.
    """

    pattern: str
    history_steps: int
    future_steps: int

    def __init__(self, data_dir: str | Path, map_range: float = 142.0) -> None:
        self.data_dir, self.map_range = Path(data_dir), float(map_range)

    def files(self) -> list[Path]:
        """Return the paths of the sequences, sorted by number or name.

        Raises:
            UserError: There is none.
        """
        found = sorted(self.data_dir.glob(self.pattern), key=lambda p: (len(p.stem), p.stem))
        if not found:
            raise UserError(f"No {self.pattern} in '{self.data_dir}', which must be one split.")
        return found

    def read(self, path: str | Path) -> Scene:
        """Read a sequence.

        Raises:
            SceneError: The file is damaged or no model can work on the scene.
            UserError: The map of the whole city is missing or damaged.
        """
        try:
            table = self._table(Path(path))
            if table.isna().any(axis=None):
                raise SceneError('empty cells')
            return self._scene(table, Path(path)).check()
        except Exception as e:  # whatever pandas, pyarrow and numpy make of damaged files
            if isinstance(e, UserError) and not isinstance(e, SceneError):
                raise
            kind = str(e) if isinstance(e, SceneError) else type(e).__name__
            raise SceneError(f"'{path}' is no usable scene: {kind} ({brief(e, 120)})", kind) from e

    @abstractmethod
    def _table(self, path: Path) -> pd.DataFrame:
        """Read the columns that a scene needs, one row a track and step."""

    @abstractmethod
    def _scene(self, table: pd.DataFrame, path: Path) -> Scene:
        """Build the scene of a table with :meth:`_build`."""

    def _build(
        self,
        tracks: pd.Series,
        steps: np.ndarray,
        points: np.ndarray,
        is_focal: np.ndarray,
        agent_types: np.ndarray,
        lane_map: LaneMap,
        **fields,
    ) -> Scene:
        """Build a scene of a table's rows.

        Args:
            tracks (pd.Series): ``[rows]``, the agent's name.
            steps (np.ndarray): int ``[rows]``.
            points (np.ndarray): float ``[rows, 2]``, meters.
            is_focal (np.ndarray): bool ``[rows]``, whether it is the focal agent's.
            agent_types (np.ndarray): int ``[rows]``, indices of ``AGENT_TYPES``.
            lane_map (LaneMap): Lanes, of which the scene gets those near the focal agent.
            **fields: The other fields of the scene.
        """
        rows, names = pd.factorize(tracks)
        focal = np.unique(rows[is_focal])
        if len(focal) != 1:
            raise SceneError('no focal agent')
        shape = len(names), self.history_steps + self.future_steps
        positions, valid = np.zeros((*shape, 2)), np.zeros(shape, dtype=bool)
        positions[rows, steps], valid[rows, steps] = points, True
        types = np.zeros(len(names), dtype=np.int8)
        types[rows] = agent_types
        return Scene(
            track_ids=[str(name) for name in names],
            agent_types=types,
            positions=positions,
            valid=valid,
            focal=int(focal[0]),
            history_steps=self.history_steps,
            map_range=self.map_range,
            **lane_map.near(positions[focal[0], self.history_steps - 1], self.map_range),
            **fields,
        )
