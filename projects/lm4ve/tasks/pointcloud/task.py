"""What the package asks of point clouds: reads, makes up, places and exports them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.dataset import Compose
from torch import Tensor, nn

from lm4ve.errors import require
from lm4ve.tasks.base.layouts import Layout
from lm4ve.tasks.base.made_up import of_first_class
from lm4ve.tasks.base.protocol import TaskProtocol
from lm4ve.tasks.base.tested import pipeline_of, tested_dataset
from lm4ve.tasks.pointcloud import TASK
from lm4ve.tasks.pointcloud.datasets.readers import find_nonfinite, read_points
from lm4ve.tasks.pointcloud.visualization import Cloud

#: Points of a made-up cloud; the pipeline samples from them.
_POINTS = 10_000


class PointCloudProtocol(TaskProtocol):
    """Clouds ``[B, N, 3]``, a token for each group of points.

    An exported function maps clouds to logits ``[B, classes]``; the groups are made
    inside.
    """

    inputs = {
        'points': "coordinates x, y, z as the test pipeline's last transform gives them"
    }
    outputs = {'logits': 'one for each class; softmax gives the probabilities'}

    def read(
        self,
        source: Any,
        cfg: Config,
        pipeline: list[dict],
        **options: Any,
    ) -> dict:
        """Send the points of a file, or an array ``[N, 3]``, through the pipeline.

        Raises:
            UserError: The file is damaged, or a point is not finite.
        """
        for transform in pipeline:
            is_sampling = transform['type'].endswith('SamplePoints')
            # Data sets store farthest points first, or in random order; files do not.
            if is_sampling and transform.get('method') == 'first':
                transform['method'] = 'fps'
        if tested_dataset(cfg).type.endswith('PrimitivesDataset'):
            # Its objects are of that size already.
            pipeline = [dict(type='lm4ve.NormalizeToUnitSphere'), *pipeline]
        if isinstance(source, np.ndarray):
            points = source
            name = 'array'
        else:
            points = read_points(source)
            name = str(source)
        defect = find_nonfinite(points)
        require(defect is None, f"The cloud '{name}' {defect}. Fix: remove them.")
        np.random.seed(0)
        return Compose(pipeline)(dict(points=points, path=name, sample_idx=0))

    def example(self, cfg: Config, number: int = 0, training: bool = False) -> dict:
        """Return a made-up cloud of class 0."""
        pipeline = pipeline_of(cfg, training)
        return of_first_class(self.read(_made_up_cloud(number), cfg, pipeline))

    def layout(
        self,
        name: str,
        model: nn.Module,
        inputs: Tensor,
        count: int,
        grid: tuple[int, ...] | None = None,
    ) -> Layout:
        """Find the places of tokens: one for each group, behind the class token if it is there."""
        backbone = getattr(model, 'backbone', model)
        groups = getattr(backbone, 'num_groups', count - 1)
        return Layout(self.task.name, count - groups, (groups,)).fitting(count)

    def pictures(
        self, model: Any, inputs: Tensor, outputs: Sequence[Any], frames: int
    ) -> list[Cloud]:
        """Return the clouds of a batch, each with the groups that the encoder makes of it."""
        _, groups = model.backbone.group(inputs)
        clouds = []
        for points, index in zip(inputs, groups, strict=True):
            coordinates = points.detach().double().cpu().numpy()
            clouds.append(Cloud(coordinates, index.cpu().numpy()))
        return clouds


def _made_up_cloud(number: int) -> np.ndarray:
    """Return points on an ellipsoid, float32 ``[N, 3]``, since a model expects surfaces."""
    rng = np.random.default_rng(number)
    directions = rng.normal(size=(_POINTS, 3))
    sphere = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    half_axes = rng.uniform(0.4, 1.0, 3)
    return (sphere * half_axes).astype(np.float32)


PROTOCOL = PointCloudProtocol(TASK)
