"""The shapes of the demo are those with which its weights were trained."""

import hashlib

import numpy as np

from lm4ve.demo_data import primitives as p


def test_objects_are_reproducible_normalized_and_different():
    clouds = p.make_primitives(2, 64, 3)
    # Those with which the shipped models were trained, to 1e-3 of the radius.
    digest = hashlib.sha256(np.rint(clouds * 1000).astype('<i2')).hexdigest()
    assert digest.startswith('3e5517caf5ed4186')
    assert not np.allclose(clouds, p.make_primitives(2, 64, 4), atol=0.1)
    assert clouds.shape == (20, 64, 3) and clouds.dtype == np.float32
    assert np.allclose(clouds.mean(1), 0, atol=1e-5)
    assert np.allclose(np.linalg.norm(clouds, axis=2).max(1), 1, atol=1e-5)
