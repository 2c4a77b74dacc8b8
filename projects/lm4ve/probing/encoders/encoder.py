"""What a frozen encoder consists of."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

#: What an error advises where the hub cannot be read.
WITHOUT_NETWORK = (
    'Without a network: package:efficientnet-lite0, or --encoder-checkpoint, which may be none: '
    'untrained.'
)


@dataclass(frozen=True)
class EncoderParts:
    """What a library's loader returns.

    Attributes:
        module (nn.Module): A batch ``[B, 3, H, W]``, or a list of a config's samples ->
            a map ``[B, C, H, W]`` (of clips ``[B, C, T, H, W]``) or tokens ``[B, N,
            C]``.
        transform (Callable): A PIL image in RGB, or what a config's data set gives its
            pipeline -> an input of the module, without the batch.
        facts (str): What decides the features beside weights and modules, for the
            fingerprint.
        prefix (int): So many class and register tokens stand before those of places.
        kind (str): What it encodes: 'image', 'video' or 'pointcloud'.
    """

    module: nn.Module
    transform: Callable[[Any], Any]
    facts: str
    prefix: int = 0
    kind: str = 'image'

    @torch.no_grad()
    def features_of_noise(self) -> Any:
        """Return the features of a picture of noise, whose patches all differ."""
        rng = np.random.default_rng(0)
        noise = rng.integers(256, size=(256, 256, 3), dtype=np.uint8)
        picture = self.transform(Image.fromarray(noise))
        return self.module.eval()(picture[None])


@dataclass(frozen=True)
class Encoder:
    """A frozen encoder in evaluation mode.

    Attributes:
        name (str): What the user called it.
        module (nn.Module): See :class:`EncoderParts`.
        transform (Callable): See :class:`EncoderParts`.
        fingerprint (str): Hex; of the weights, the architecture and the transform.
        prefix (int): So many class and register tokens stand before those of places.
        kind (str): What it encodes: 'image', 'video' or 'pointcloud'.
    """

    name: str
    module: nn.Module
    transform: Callable[[Any], Any]
    fingerprint: str
    prefix: int = 0
    kind: str = 'image'


class FrozenModel(nn.Module):
    """A model, and the function that gives its features.

    Args:
        model (nn.Module): The model.
        run (Callable): Takes the model and a batch; returns features.
    """

    def __init__(self, model: nn.Module, run: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.model = model
        self.run = run

    def _get_name(self) -> str:
        # The printed module is part of the fingerprint: another name would compute
        # stored features anew.
        return '_Frozen'

    def forward(self, inputs: Any) -> Any:
        return self.run(self.model, inputs)
