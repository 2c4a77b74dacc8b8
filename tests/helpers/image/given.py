"""What the released loop of images was given, for the tests too.

``tools/dev/released/image_loop.py`` gave it.
"""

from typing import Any

import numpy as np

#: Of the training: 30 steps.
EPOCHS = 10
WARMUP_EPOCHS = 2
STEPS_PER_EPOCH = 3
BATCH = 4
#: Peak of the learning rate, and batch of all GPUs, which are the release's.
RATE = 1e-3
CLASSES = 10
#: ViT-S of the release, small.
VIT: dict[str, Any] = dict(
    img_size=16, patch_size=4, embed_dim=24, depth=2, num_heads=3
)
#: LLaMA in the words of the release: the last of 32 layers is used.
LLAMA: dict[str, Any] = dict(
    dim=32,
    multiple_of=16,
    n_heads=4,
    n_layers=32,
    first_layer=31,
    norm_eps=1e-6,
    vocab_size=-1,
)


def pictures() -> np.ndarray:
    """The pictures of an epoch, uint8 RGB ``[N, 3, 16, 16]``."""
    shape = (STEPS_PER_EPOCH * BATCH, 3, VIT['img_size'], VIT['img_size'])
    return np.random.default_rng(6).integers(0, 256, shape, np.uint8)


def labels() -> list[int]:
    """The class of each picture."""
    count = STEPS_PER_EPOCH * BATCH
    return np.random.default_rng(7).integers(0, CLASSES, count).tolist()
