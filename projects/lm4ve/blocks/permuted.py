"""A control: a language model's weights in random order, ``pretrained='permuted'``."""

import zlib

import torch
from torch import Tensor


def permuted(weight: Tensor, name: str) -> Tensor:
    """Bring a matrix's elements into a random order.

    Args:
        weight (Tensor): It may have any shape; a vector stays as it is.
        name (str): The order depends on it and on the seed of torch's global CPU
            generator.
    """
    if weight.dim() < 2:
        return weight
    seed = torch.default_generator.initial_seed() + zlib.crc32(name.encode())
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(weight.numel(), generator=generator)
    return weight.flatten()[order].view(weight.shape)
