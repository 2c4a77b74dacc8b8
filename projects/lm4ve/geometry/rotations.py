"""Rotations of points in space."""

import numpy as np
from scipy.spatial.transform import Rotation


def random_rotation(rng=np.random) -> np.ndarray:
    """Draw a rotation matrix ``[3, 3]`` from the uniform distribution over SO(3).

    The unit quaternion of four Gaussian numbers (Shoemake, Graphics Gems III, 1992), as
    SciPy's ``Rotation.random`` draws it, but with the scalar first: the shapes of the
    demo were made so.

    Args:
        rng (np.random.Generator): The source of all random numbers; default: NumPy's
            global generator.
    """
    w, x, y, z = rng.normal(size=4)
    return Rotation.from_quat([x, y, z, w]).as_matrix()
