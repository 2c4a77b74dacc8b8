"""What the released Point-BERT was given, for the tests too.

``tools/dev/released/pointbert.py`` and ``cloud_loop.py`` gave it.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

#: Of NumPy's global generator when the training on one cloud begins; and its epochs.
SEED = 0
EPOCHS = 30
#: ``PointTransformer_hardest.yaml`` of the release.
REAL: dict[str, Any] = dict(
    trans_dim=384,
    depth=12,
    drop_path_rate=0.1,
    cls_dim=40,
    num_heads=6,
    group_size=32,
    num_group=64,
    encoder_dims=256,
)
#: LLaMA in the words of the release: the second of two layers is used.
LLAMA: dict[str, Any] = dict(
    dim=32,
    multiple_of=16,
    n_heads=4,
    n_layers=2,
    first_layer=1,
    norm_eps=1e-6,
    vocab_size=-1,
)
SMALL: dict[str, Any] = dict(
    trans_dim=24,
    depth=2,
    drop_path_rate=0.1,
    cls_dim=40,
    num_heads=3,
    group_size=8,
    num_group=12,
    encoder_dims=16,
    use_llama=True,
    llama_path='',
    llama_cfg=LLAMA,
)
#: Of the two clouds that the networks get. The release has 40 outputs for 15 classes.
LABELS = [3, 14]
#: Of the training loop: 30 steps.
LOOP_EPOCHS = 10
WARMUP_EPOCHS = 2
STEPS_PER_EPOCH = 3
BATCH = 4


def cloud() -> np.ndarray:
    """A ball without its middle, float32 ``[2048, 3]``: no point lies near the origin."""
    rng = np.random.default_rng(5)
    points = rng.normal(size=(2048, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    radii = rng.uniform(0.3, 1.0, size=(2048, 1))
    return (points * radii).astype(np.float32)


def points() -> np.ndarray:
    """The inputs of the networks, float64 ``[2, 256, 3]``; again none near the origin."""
    return np.stack([cloud()[:256], 0.8 * cloud()[256:512]]).astype(np.float64)


def batches(count: int) -> Iterator[tuple[np.ndarray, list[int]]]:
    """The clouds of each step of the loop, float64 ``[4, 128, 3]``, and their labels."""
    rng = np.random.default_rng(8)
    for _ in range(count):
        directions = rng.normal(size=(BATCH, 128, 3))
        directions /= np.linalg.norm(directions, axis=2, keepdims=True)
        # No point lies near the origin.
        radii = rng.uniform(0.3, 1.0, size=(BATCH, 128, 1))
        yield directions * radii, rng.integers(0, 15, BATCH).tolist()
