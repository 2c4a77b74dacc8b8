"""Necks with LoRA in the block or on the mappers."""

import torch
from torch import nn

from lm4ve.necks import LLMBlockNeck
from tests.helpers.families import FAMILIES
from tests.helpers.necks.equality import C

ARCH = dict(FAMILIES['llama'], initializer_range=0.3)


def make(low_rank='off', lora=None, arch=ARCH, mapped=None, **neck) -> LLMBlockNeck:
    torch.manual_seed(0)
    block = dict(type='LLMBlock', arch=arch, layers=(0, 1))
    if lora is not None:
        block.update(trainable='lora', lora=lora)
    made = LLMBlockNeck(C, block, low_rank=low_rank, norm_cfg=None, lora=mapped, **neck)
    for name, parameter in made.named_parameters():
        if name.startswith('mapper_'):
            _draw(name, parameter)
    return grown(made)


def grown(module: nn.Module) -> nn.Module:
    """Give adapters values that show."""
    for name, parameter in module.named_parameters():
        if 'lora_' in name:
            _draw(name, parameter)
    return module


def _draw(name: str, parameter: nn.Parameter) -> None:
    """Draw values that follow from the name, with peft or without it."""
    own_name = name.replace('.base_layer', '')
    generator = torch.Generator().manual_seed(len(own_name))
    parameter.data.normal_(0, 0.4, generator=generator)


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
