"""Necks with LoRA in the block or on the mappers."""

import torch
from torch import nn

from lm4ve.necks import LLMBlockNeck
from tests.helpers.families import FAMILIES
from tests.helpers.necks.equality import C

ARCH = dict(FAMILIES['llama'], initializer_range=0.3)


def make(low_rank='off', lora=None, arch=ARCH, mapped=None, **neck) -> LLMBlockNeck:
    torch.manual_seed(0)
    trained = {} if lora is None else dict(trainable='lora', lora=lora)
    block = dict(type='LLMBlock', arch=arch, layers=(0, 1), **trained)
    made = LLMBlockNeck(C, block, low_rank=low_rank, norm_cfg=None, lora=mapped, **neck)
    return grown(made, 'mapper_')


def grown(module: nn.Module, prefix: str = '', std: float = 0.4) -> nn.Module:
    """Give adapters and mappers values that show."""
    for name, p in module.named_parameters():
        generator = torch.Generator().manual_seed(len(name.replace('.base_layer', '')))
        if 'lora_' in name or (prefix and name.startswith(prefix)):
            p.data.normal_(0, std, generator=generator)
    return module


def train(model: nn.Module) -> list[float]:
    """Three steps of Adam on fixed batches; return the losses."""
    optimizer = torch.optim.Adam(
        [p for p in model.parameters() if p.requires_grad], 0.01
    )
    losses = []
    for i in range(3):
        torch.manual_seed(i)
        loss = model(torch.randn(2, 5, C)).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses
