"""Weights and inputs that follow from a seed, so that no file has to hold them.

The scripts beside this file give such weights to released code and store what comes out
below ``tests/data/released``. The tests give the same weights to our models.
"""

from collections.abc import Mapping, Sequence

import numpy as np


def seeded_weights(
    shapes: Mapping[str, Sequence[int]], seed: int = 0
) -> dict[str, np.ndarray]:
    """Draw the weights of a model, in the order of their sorted names.

    A matrix or kernel is normal with a standard deviation of 1 / sqrt(inputs). Gains
    and running variances lie around 1, biases and running means around 0.

    Args:
        shapes (Mapping[str, Sequence[int]]): Name of each tensor -> its shape.
        seed (int): Of NumPy's generator.

    Returns:
        dict[str, np.ndarray]: float64 that float32 represents exactly.
    """
    generator = np.random.default_rng(seed)
    weights = {}
    for name in sorted(shapes):
        shape = tuple(shapes[name])
        drawn = generator.standard_normal(shape)
        if len(shape) > 1:
            values = drawn / np.sqrt(np.prod(shape[1:]))
        elif name.endswith(('weight', 'running_var')):
            values = 1 + 0.1 * drawn
        else:
            values = 0.1 * drawn
        weights[name] = values.astype(np.float32).astype(np.float64)
    return weights


def gradient_marks(
    gradients: Mapping[str, np.ndarray], seed: int = 1
) -> dict[str, np.ndarray]:
    """Return two numbers of each gradient, which are stored in its place.

    They are its norm and its product with a unit vector that follows from the seed. Equal
    gradients have equal marks, and others have equal ones by chance only.

    Args:
        gradients (Mapping[str, np.ndarray]): Name of each parameter -> its gradient.
        seed (int): Of the vectors, drawn in the order of the sorted names.

    Returns:
        dict[str, np.ndarray]: float64 ``[2]`` for each name.
    """
    generator = np.random.default_rng(seed)
    marks = {}
    for name in sorted(gradients):
        gradient = gradients[name]
        direction = generator.standard_normal(gradient.shape)
        product = np.sum(gradient * direction) / np.linalg.norm(direction)
        marks[name] = np.array([np.linalg.norm(gradient), product])
    return marks
