"""Reader that Argoverse 1 and 2 share: from a table of one sequence to a ``Scene``.

The data sets differ in their files, columns and maps; each has a module of its own.
The package ``av2`` is not used, since it brings kornia, numba, polars and PyAV for a
table and a JSON file; the tests compare with it.
"""

from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
import pandas as pd

from lm4ve.errors import UserError, brief
from lm4ve.tasks.motion.scene import Scene, SceneError

#: The lanes of a city or around one scene: ``lanes``, ``lane_turns``, ``lane_intersections``
#: and ``lane_controls`` as in :class:`lm4ve.tasks.motion.scene.Scene`.
LaneMap = dict[str, np.ndarray]


class ArgoverseReader(ABC):
    """Read the sequences of one split.

    Args:
        data_dir (str | Path): Folder of the split.
        map_range (float): How far around the focal agent lanes are kept along
            both axes, meters. 142 covers any square of +-100 m in its frame.

    Attributes:
        pattern (str): Glob of the sequences below the folder.
        history_steps, future_steps (int): Steps of a sequence.
        lane_margin (float): Half the width of a lane beside its center line, meters.
    """

    pattern: str
    history_steps: int
    future_steps: int
    lane_margin = 0.0

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
            return self._build(*self._parse(Path(path))).check()
        except Exception as e:  # whatever pandas, pyarrow and numpy make of damaged files
            if isinstance(e, UserError) and not isinstance(e, SceneError):
                raise
            kind = str(e) if isinstance(e, SceneError) else type(e).__name__
            raise SceneError(f"'{path}' is no usable scene: {kind} ({brief(e, 120)})", kind) from e

    @abstractmethod
    def _parse(self, path: Path) -> tuple[pd.DataFrame, LaneMap, dict]:
        """Read a file.

        Returns:
            tuple[pd.DataFrame, LaneMap, dict]: A row for each track and step with ``track`` (the
            agent's name), ``step``, ``x``, ``y`` (meters), ``is_focal`` and ``agent_type`` (index
            of ``AGENT_TYPES``); the map; and further fields of the scene.
        """

    def _build(self, table: pd.DataFrame, lane_map: LaneMap, fields: dict) -> Scene:
        """Build the scene of what :meth:`_parse` returns, with the lanes near the focal agent."""
        if table.isna().any(axis=None):
            raise SceneError('empty cells')
        rows, names = pd.factorize(table['track'])
        focal = np.unique(rows[table['is_focal']])
        if len(focal) != 1:
            raise SceneError('no focal agent')
        at = rows, table['step'].to_numpy()
        shape = len(names), self.history_steps + self.future_steps
        positions, valid = np.zeros((*shape, 2)), np.zeros(shape, dtype=bool)
        positions[at], valid[at] = table[['x', 'y']], True
        agent_types = np.zeros(len(names), dtype=np.int8)
        agent_types[rows] = table['agent_type']
        here, reach = positions[focal[0], self.history_steps - 1], self.map_range + self.lane_margin
        low, high = lane_map['lanes'].min(axis=1), lane_map['lanes'].max(axis=1)
        near = ((low <= here + reach) & (high >= here - reach)).all(axis=1)
        return Scene(
            track_ids=[str(name) for name in names],
            agent_types=agent_types,
            positions=positions,
            valid=valid,
            focal=int(focal[0]),
            history_steps=self.history_steps,
            map_range=self.map_range,
            **{name: values[near] for name, values in lane_map.items()},
            **fields,
        )
