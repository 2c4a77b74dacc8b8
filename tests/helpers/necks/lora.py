"""Necks with LoRA in the block or on the mappers."""

import torch
from torch import nn

from lm4ve.necks import LLMBlockNeck
from tests.helpers.families import FAMILIES
from tests.helpers.necks.equality import C

#: A tiny LLaMA whose weights are large enough that attention is not uniform.
ARCH = dict(FAMILIES['llama'], initializer_range=0.3)


def build_neck(
    low_rank: str = 'off',
    block_lora: dict | None = None,
    arch: dict = ARCH,
    mapper_lora: dict | None = None,
    dtype: str = 'float32',
    **options,
) -> LLMBlockNeck:
    """Build a neck of two layers with the same weights every time.

    Its adapters, if it has any, have values as after a training.

    Args:
        low_rank (str): How the neck uses the low rank of the block's input.
        block_lora (dict, optional): Fields of the adapters inside the block.
        arch (dict): Sizes of the language model.
        mapper_lora (dict, optional): Fields of the adapters on the two mappers.
        dtype (str): The block's type.
        **options: More fields of the neck.
    """
    torch.manual_seed(0)
    block = dict(type='LLMBlock', arch=arch, layers=(0, 1), dtype=dtype)
    if block_lora is not None:
        block.update(trainable='lora', lora=block_lora)
    neck = LLMBlockNeck(
        C, block, low_rank=low_rank, norm_cfg=None, lora=mapper_lora, **options
    )
    for name, parameter in neck.named_parameters():
        if name.startswith('mapper_'):
            _draw(name, parameter)
    return fill_adapters(neck)


def fill_adapters(module: nn.Module) -> nn.Module:
    """Give the adapters of a module values as after a training: fresh ones change nothing.

    Returns:
        nn.Module: The module itself.
    """
    for name, parameter in module.named_parameters():
        if 'lora_' in name:
            _draw(name, parameter)
    return module


def _draw(name: str, parameter: nn.Parameter) -> None:
    """Draw values that follow from the name, with peft or without it."""
    own_name = name.replace('.base_layer', '')
    generator = torch.Generator().manual_seed(len(own_name))
    parameter.data.normal_(0, 0.4, generator=generator)


def train_three_steps(model: nn.Module) -> list[float]:
    """Train three steps of Adam on fixed batches; return the three losses."""
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
