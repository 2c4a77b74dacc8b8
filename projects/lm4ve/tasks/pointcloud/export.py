"""Inputs and outputs of exported point-cloud models."""

import numpy as np
from mmengine.config import Config

from lm4ve.tasks.base.export import TaskExport, array_samples
from lm4ve.tasks.pointcloud import TASK

#: Points of a made-up cloud; the pipeline samples from them.
_POINTS = 10_000


class PointCloudExport(TaskExport):
    """Clouds ``[B, N, 3]`` to logits ``[B, classes]``; their groups are made inside."""

    inputs = {
        'points': "coordinates x, y, z as the test pipeline's last transform gives them"
    }
    outputs = {'logits': 'one for each class; softmax gives the probabilities'}

    def samples(
        self, cfg: Config, count: int, pipeline: list[dict] | None = None
    ) -> list[dict]:
        """Return samples of clouds on ellipsoids, since a model expects surfaces."""
        rng = np.random.default_rng(0)
        directions = rng.normal(size=(count, _POINTS, 3))
        spheres = directions / np.linalg.norm(directions, axis=2, keepdims=True)
        half_axes = rng.uniform(0.4, 1.0, (count, 1, 3))
        clouds = spheres * half_axes
        contents = list(clouds.astype(np.float32))
        return array_samples(self.task, cfg, contents, '.npy', pipeline=pipeline)


EXPORT = PointCloudExport(TASK)
