"""A model of MMEngine with a neck, which it may leave unused."""

import torch
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from torch import nn

from tests.helpers.models import BLOCK

NECK = dict(type='LLMBlockNeck', in_channels=16, block=BLOCK)


class Host(BaseModel):
    """A linear layer, a neck, a linear layer.

    Args:
        uses (str): 'yes', 'never' (the neck does not run) or 'drops' (its output is
            not read).
        **neck: Fields of the neck.
    """

    def __init__(self, uses: str = 'yes', **neck) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Linear(16, 16)
        self.neck = MODELS.build({**NECK, **neck})
        self.head = nn.Linear(16, 3)
        self.uses = uses

    def forward(self, inputs, data_samples=None, mode='loss'):
        x = self.stem(inputs)
        if self.uses == 'yes':
            x = self.neck(x)
        elif self.uses == 'drops':
            self.neck(x)
        return dict(loss=self.head(x).square().mean())
