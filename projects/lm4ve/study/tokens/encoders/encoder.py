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
        facts (str): Whatever else features depend on, for the fingerprint: for example
            the transform's settings.
        prefix (int): The number of class and register tokens, which come first.
        kind (str): What it encodes: 'image', 'video' or 'pointcloud'.
    """

    module: nn.Module
    transform: Callable[[Any], Any]
    facts: str
    prefix: int = 0
    kind: str = 'image'

    @torch.no_grad()
    def features_of_noise(self) -> Any:
        """Return the features of a random picture, a batch of one; all its patches differ."""
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
        prefix (int): The number of class and register tokens, which come first.
        has_class_token (bool): Whether the first of them is a class token; all others
            are taken for registers.
        kind (str): What it encodes: 'image', 'video' or 'pointcloud'.
    """

    name: str
    module: nn.Module
    transform: Callable[[Any], Any]
    fingerprint: str
    prefix: int = 0
    has_class_token: bool = False
    kind: str = 'image'


def has_class_token(model: nn.Module) -> bool:
    """Return whether a model learns a class token, by the names of its parameters.

    Most models call it ``cls_token``, torchvision's ``class_token``, and CLIP and its
    like ``class_embedding``. Registers may come without it, as in timm's
    ``vit_*_reg4_gap_*``.
    """
    for path, _ in model.named_parameters():
        _, _, name = path.rpartition('.')
        if name.startswith(('cls_', 'class_')):
            return True
    return False


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
        """Return the name that torch prints, which is older than the class's.

        The printed module is part of an encoder's fingerprint, so that with another name
        all stored features would be computed again.
        """
        return '_Frozen'

    def forward(self, inputs: Any) -> Any:
        """Return the features of a batch; see :class:`EncoderParts`."""
        return self.run(self.model, inputs)
