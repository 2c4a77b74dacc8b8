"""Inputs of the tiny blocks, which are 32 wide."""

import torch


def tokens(seed: int = 0, length: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, length, 32, generator=generator)


def right_padding(length: int = 6) -> torch.Tensor:
    """No padding in sample 0, two tokens of it in sample 1."""
    padding = torch.zeros(2, length, dtype=torch.bool)
    padding[1, -2:] = True
    return padding
