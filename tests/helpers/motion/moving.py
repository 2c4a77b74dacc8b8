"""Scenes that are moved as a whole, or whose focal agent goes straight."""

from dataclasses import replace

import numpy as np

from lm4ve.tasks.motion.structures import Scene, rotation


def moved(scene: Scene, angle: float, shift: list[float]) -> Scene:
    """Turn by ``angle`` and shift; the pose is found again from the coordinates."""
    turn = rotation(angle).T
    return replace(
        scene,
        positions=np.where(scene.valid[..., None], scene.positions @ turn + shift, 0.0),
        lanes=scene.lanes @ turn + shift,
        origin=None,
        heading=None,
    )


def straight(scene: Scene, speed: float = 8.0) -> Scene:
    """Let the focal agent go straight at constant speed."""
    steps = np.arange(scene.positions.shape[1])[:, None] * 0.1
    positions, valid = scene.positions.copy(), scene.valid.copy()
    positions[scene.focal] = [100.0, 50.0] + steps * speed * np.array([0.6, 0.8])
    valid[scene.focal] = True
    return replace(scene, positions=positions, valid=valid, origin=None, heading=None)
