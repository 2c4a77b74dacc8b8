"""Hooks of the point-cloud task for `lm4ve visualize`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.dataset import Compose
from torch import Tensor, nn

from lm4ve.draw.figures import BACKGROUND, without_ticks
from lm4ve.draw.pictures import Picture, TokenMap
from lm4ve.draw.solids import Solids, draw_solids, view_axes
from lm4ve.tasks.base.analysis import Layout, TaskAnalysis, tested_dataset
from lm4ve.tasks.pointcloud import TASK


class PointCloudAnalysis(TaskAnalysis):
    """Clouds ``[B, N, 3]``, a token for each group of points."""

    def read_input(
        self, cfg: Config, path: Path, pipeline: list[dict], **options: Any
    ) -> dict:
        from lm4ve.tasks.pointcloud.datasets.readers import drop_nonfinite, read_points

        for t in pipeline:
            # Data sets store farthest points first, or in random order; files do not.
            if t['type'].endswith('SamplePoints') and t.get('method') == 'first':
                t['method'] = 'fps'
        if tested_dataset(cfg).type.endswith('PrimitivesDataset'):
            # Its objects are of that size already.
            pipeline = [dict(type='lm4ve.NormalizeToUnitSphere'), *pipeline]
        points = drop_nonfinite(read_points(path), f"'{path}'")
        np.random.seed(0)
        return Compose(pipeline)(dict(points=points, path=str(path), sample_idx=0))

    def layout(
        self,
        model: nn.Module,
        inputs: Tensor,
        count: int,
        grid: tuple[int, ...] | None = None,
    ) -> Layout:
        backbone = getattr(model, 'backbone', model)
        groups = getattr(backbone, 'num_groups', count - 1)
        return Layout(self.task.name, count - groups, (groups,)).fitting(count)

    def pictures(
        self, model: Any, inputs: Tensor, outputs: Sequence[Any], frames: int
    ) -> list['Cloud']:
        _, groups = model.backbone.group(inputs)
        return [
            Cloud(points.detach().double().cpu().numpy(), index.cpu().numpy())
            for points, index in zip(inputs, groups, strict=True)
        ]


class Cloud(Picture):
    """A point cloud and its token groups in 3-D, seen from one side.

    Args:
        points (np.ndarray): float ``[N, 3]``.
        groups (np.ndarray): int ``[G, S]``, each group's points.
    """

    side = 1.9
    caption = 'near points are dark'

    def __init__(self, points: np.ndarray, groups: np.ndarray) -> None:
        self.groups = groups
        #: Right, up, and towards the eye, ``[N, 3]``, in the points' unit.
        self.seen = (
            points - (points.max(axis=0) + points.min(axis=0)) / 2
        ) @ view_axes().T

    def point_values(self, values: np.ndarray) -> np.ndarray:
        """Average values ``[G]`` over each point's groups, ``[N]``, NaN without any."""
        member = np.zeros((len(self.groups), len(self.seen)), dtype=bool)
        np.put_along_axis(member, self.groups, True, axis=1)
        count = member.sum(axis=0)
        return np.where(count > 0, values @ member / np.maximum(count, 1), np.nan)

    def draw_input(self, axes: Any, time: int = 0) -> None:
        """Draw the points, near ones dark."""
        from matplotlib import colormaps

        depth = self.seen[:, 2]
        # Not from white: the far side is to be seen too.
        darkness = (depth - depth.min()) / max(np.ptp(depth), 1e-12)
        self._draw(axes, colormaps['Greys']((0.6 + darkness) / 1.6)[:, :3], 1.0)

    def draw_values(
        self, axes: Any, tokens: TokenMap, colors: str, time: int = 0
    ) -> None:
        """Color the points by their groups; those without one are small and gray."""
        from matplotlib import colormaps

        shades = colormaps[colors].with_extremes(bad='0.58')
        values = np.ma.masked_invalid(self.point_values(tokens.values))
        sizes = np.where(values.mask, 0.6, 1.0)
        self._draw(axes, shades(tokens.norm()(values))[:, :3], sizes)

    def _draw(self, axes: Any, colors: np.ndarray, sizes: float | np.ndarray) -> None:
        # All points may be one.
        reach = 1.06 * np.abs(self.seen[:, :2]).max() or 1.0
        # The fewer points, the larger.
        radius = reach * np.clip(1 / np.sqrt(len(self.seen)), 0.008, 0.045)
        radii = radius * sizes * np.ones(len(self.seen))
        solids = Solids(self.seen, radii, colors)
        draw_solids(axes, solids, (reach, reach), BACKGROUND)
        without_ticks(axes)


ANALYSIS = PointCloudAnalysis(TASK)
