"""Frozen encoders by name: of timm, transformers, torchvision, a package, or a config."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Encoder:
    """A frozen encoder in evaluation mode.

    Attributes:
        name (str): What the user called it.
        module (nn.Module): A batch -> a map ``[B, C, H, W]``, or tokens ``[B, N, C]``.
        transform (Callable): A PIL image in RGB -> an input of the module, without the batch.
        fingerprint (str): Hex; of the weights, the architecture and the transform.
        prefix (int): Class and register tokens, which stand before those of places.
        kind (str): What it encodes: 'image', 'video' or 'pointcloud'.
    """

    name: str
    module: nn.Module
    transform: Callable[[Any], Any]
    fingerprint: str
    prefix: int = 0
    kind: str = 'image'


def load_encoder(name: str, checkpoint: str | None = None, size: int | None = None) -> Encoder:
    """Load an encoder by its name."""
    raise NotImplementedError
