"""An encoder of waves, the neck, and a linear head."""

import torch
from mmengine.model import BaseModel
from torch import nn

from lm4ve.registry import MODELS
from lm4ve.tasks.base.token_neck import build_token_neck


@MODELS.register_module()
class WaveClassifier(BaseModel):
    """Makes a token of every four samples.

    Args:
        neck (dict): The config of an ``LLMBlockNeck`` that returns ``[B, 8]``.
    """

    def __init__(self, neck: dict) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(4, 8), nn.GELU())
        self.neck = build_token_neck(neck)
        self.head = nn.Linear(8, 2)

    def forward(self, inputs, label=None, mode='tensor', **_):
        waves = inputs
        if isinstance(inputs, list):  # of a data loader; the exporter gives a tensor
            waves = torch.stack(inputs)
        tokens = self.encoder(waves.unflatten(1, (-1, 4)))
        scores = self.head(self.neck(tokens))
        if mode == 'loss':
            return dict(loss=nn.functional.cross_entropy(scores, torch.tensor(label)))
        if mode == 'tensor':
            return scores
        return [dict(pred_label=s.argmax(), pred_score=s.softmax(0)) for s in scores]
