"""What the analysis of activations asks the motion task."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from torch import nn

from lm4ve.errors import UserError
from lm4ve.tasks.base.analysis import Layout, Row, TaskAnalysis, numbered
from lm4ve.tasks.base.pictures import BACKGROUND, Picture, TokenMap, without_ticks
from lm4ve.tasks.motion import TASK

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class SceneLayout(Layout):
    """Tokens of agents, then tokens of lanes: their numbers add up."""

    @property
    def num_placed(self) -> int:
        return sum(self.grid)


class MotionAnalysis(TaskAnalysis):
    """Traffic scenes: a dict of agents and lanes, a token for each of them."""

    def read_input(self, cfg: Config, path: Path, pipeline: list[dict], **options: Any) -> dict:
        """Read an Argoverse scene; ``map_dir`` is Argoverse 1's ``map_files``.

        By default it is the next folder of that name above the file.
        """
        from lm4ve.tasks.motion import Argoverse1Reader, Argoverse2Reader

        if path.suffix.lower() == '.csv':
            maps = options.get('map_dir') or _find_map_files(path)
            scene = Argoverse1Reader(path.parent, maps).read(path)
        else:
            scene = Argoverse2Reader(path.parent.parent).read(path)
        expected = cfg.model.decoder.get('future_steps', scene.future_steps)
        if scene.future_steps != expected:
            raise UserError(
                f"'{path}' has {scene.future_steps} steps to forecast, the config's "
                f'model {expected}. Fix: give files of the data set that it was '
                'trained on.'
            )
        return Compose(pipeline)(dict(scene=scene, sample_idx=0))

    def layout(
        self, model: nn.Module, inputs: dict, count: int, grid: tuple[int, ...] | None = None
    ) -> Layout:
        mask = torch.cat([inputs['agent_padding'], inputs['lane_padding']], dim=1)
        agents, lanes = (inputs[k].shape[1] for k in ('agent_padding', 'lane_padding'))
        # Some models have agents' tokens alone before lanes join.
        grid = (agents, 0) if count == agents else (agents, lanes)
        return SceneLayout(self.task.name, 0, grid, mask[:, : sum(grid)]).fitting(count)

    def attention_row(self, layout: Layout, inputs: dict) -> tuple[Row, str]:
        return inputs['queries'][:, 0], 'focal agent'

    def pictures(
        self, model: nn.Module, inputs: dict, outputs: Sequence[Any], frames: int
    ) -> list['TrafficScene']:
        a = {k: v.cpu().numpy() for k, v in inputs.items() if torch.is_tensor(v)}
        return [
            TrafficScene(
                a['agents'][i],
                a['agents_valid'][i] & ~a['agent_padding'][i][:, None],
                a['lanes'][i],
                a['lane_padding'][i],
                output if 'scene' in output else None,
            )
            for i, output in enumerate(outputs)
        ]

    def facts(self, output: dict, classes: Sequence[str] | None) -> dict[str, str]:
        from lm4ve.tasks.motion import forecast_metrics

        if 'trajectories' not in output:
            return {}
        lines, p = output['trajectories'], output['probabilities']
        facts = dict(
            prediction=f'{len(lines)} trajectories, the likeliest with '
            f'{100 * float(np.max(p)):.1f} %'
        )
        scene = output['scene']
        truth, valid = scene.future
        if valid.any():
            m = forecast_metrics(lines, p, truth, valid)
            facts['against the truth'] = f'minADE {m["minADE"]:.2f} m, minFDE {m["minFDE"]:.2f} m'
        return facts

    def result(self, output: dict, classes: Sequence[str] | None) -> dict[str, Any]:
        """Return ``trajectories`` ``[K, F, 2]`` in city coordinates, the likeliest first, and
        their ``probabilities`` ``[K]``."""
        found = {k: np.asarray(output[k]) for k in ('trajectories', 'probabilities')}
        return dict(scene_id=output['scene'].scene_id, **found)

    def sample_name(self, output: dict, number: int) -> str:
        return numbered(number, getattr(output.get('scene'), 'scene_id', None))


def _find_map_files(path: Path) -> Path:
    for folder in path.resolve().parents:
        if (folder / 'map_files').is_dir():
            return folder / 'map_files'
    raise UserError(
        f"No folder map_files above '{path}'. Fix: --map-dir, with the folder of hd_maps.tar.gz."
    )


class TrafficScene(Picture):
    """Agents and lanes of a traffic scene, in the focal agent's frame.

    Args:
        agents (np.ndarray): float ``[A, H, 2]``, histories, meters; the focal
            agent is the first.
        agents_valid (np.ndarray): bool ``[A, H]``; an agent without any is
            padding.
        lanes (np.ndarray): float ``[L, P, 2]``, meters.
        lane_padding (np.ndarray): bool ``[L]``, True = padding.
        prediction (dict, optional): ``scene``, and perhaps ``trajectories`` and
            ``probabilities``; see :func:`lm4ve.tasks.motion.visualization.draw_scene`.
        extent (float, optional): Half the side of what is shown, meters; default:
            so that agents and forecasts fit, 40 to 60.
    """

    side = 2.1
    caption = 'past blue, truth green, forecasts red'

    def __init__(
        self,
        agents: np.ndarray,
        agents_valid: np.ndarray,
        lanes: np.ndarray,
        lane_padding: np.ndarray,
        prediction: dict | None = None,
        extent: float | None = None,
    ) -> None:
        self.agents, self.agents_valid = agents, agents_valid
        self.lanes, self.lane_padding = lanes, lane_padding
        self.prediction = prediction
        self.extent = extent or self._fitting_extent()

    def _fitting_extent(self) -> float:
        shown = [self.agents[self.agents_valid]]
        if self.prediction is not None and 'trajectories' in self.prediction:
            lines = np.asarray(self.prediction['trajectories'])
            shown.append(self.prediction['scene'].to_local(lines).reshape(-1, 2))
        reach = np.abs(np.concatenate(shown)).max(initial=0.0)
        return float(np.clip(1.1 * reach, 40.0, 60.0))

    def draw_input(self, axes: 'Axes', time: int = 0) -> None:
        """Draw the map, histories, the truth and the forecasts."""
        if self.prediction is None:
            self._draw_lanes(axes)
            for i in range(len(self.agents)):
                self._draw_agent(axes, i, '#1f4e9c' if i == 0 else '.4')
        else:
            from lm4ve.tasks.motion.visualization import draw_scene

            parts = (self.prediction.get(k) for k in ('scene', 'trajectories', 'probabilities'))
            draw_scene(axes, *parts, self.extent, labels=False)
            axes.set_title('')
        self._finish(axes, 'white')

    def draw_values(self, axes: 'Axes', tokens: TokenMap, colors: str, time: int = 0) -> None:
        """Color agents and lanes; what has no token is thin and white."""
        from matplotlib import colormaps

        count = len(self.agents)
        shade, norm = colormaps[colors], tokens.norm()
        self._draw_lanes(axes, tokens.values[count:], lambda v: shade(norm(v)))
        # The focal agent last, on top.
        for i in reversed(range(count)):
            self._draw_agent(axes, i, shade(norm(tokens.values[i])))
        self._finish(axes, BACKGROUND)

    def _draw_lanes(
        self, axes: 'Axes', values: Sequence[float] = (), shade: Callable | None = None
    ) -> None:
        """Draw lanes, those with large values on top; thin ones without values."""
        from matplotlib.collections import LineCollection

        kept = np.flatnonzero(~self.lane_padding)
        colors, width = 'white' if shade else '.75', 0.8
        if len(values):
            kept = kept[np.argsort(values[kept], kind='stable')]
            colors, width = shade(values[kept]), 1.6
        axes.add_collection(
            LineCollection(self.lanes[kept], colors=colors, linewidths=width, zorder=1)
        )

    def _draw_agent(self, axes: 'Axes', i: int, color: Any) -> None:
        valid = self.agents_valid[i]
        if not valid.any():
            return
        path = self.agents[i][valid]
        # A dark rim: an agent stands out from the lane below it.
        axes.plot(*path.T, color='k', lw=3.0, zorder=2, solid_capstyle='round')
        axes.plot(*path.T, color=color, lw=2.0, zorder=2, solid_capstyle='round')
        marker, size = ('o', 5.0) if i else ('D', 6.5)
        axes.plot(*path[-1], marker, color=color, ms=size, mec='k', mew=0.7, zorder=3)

    def _finish(self, axes: 'Axes', background: str) -> None:
        reach = -self.extent, self.extent
        axes.set(xlim=reach, ylim=reach, aspect='equal', facecolor=background)
        without_ticks(axes)


ANALYSIS = MotionAnalysis(TASK)
