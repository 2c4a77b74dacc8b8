"""A neck whose folds are tested, what it gives, and what it should give."""

import warnings
from collections.abc import Callable

import torch
from torch import nn

from lm4ve.necks import LLMBlockNeck

C = 8
METHODS = ('fold', 'absorb', 'fold in pieces')
ROW = 4 * 32  # bytes of a projection's row


def neck_of(checkpoints, method: str, **block) -> LLMBlockNeck:
    torch.manual_seed(0)
    options = dict(type='LLMBlock', checkpoint=checkpoints('gpt2'), **block)
    neck = LLMBlockNeck(C, options, low_rank=method.partition(' ')[0])
    if 'pieces' in method:  # of one row, as if the block were wide
        neck.block._fold_memory.PIECE = ROW
    for p in (neck.mapper_in.weight, neck.mapper_out.weight):
        nn.init.normal_(p, std=0.4)
    return neck.eval()


def tokens() -> torch.Tensor:
    return torch.randn(2, 5, C, generator=torch.Generator().manual_seed(2))


def folded(neck: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return neck(tokens(), queries=slice(0, 2))


def plain(neck: LLMBlockNeck) -> torch.Tensor:
    """Return what the same weights give without any folding."""
    method, neck.low_rank = neck.low_rank, 'off'
    try:
        return folded(neck)
    finally:
        neck.low_rank = method


def every_data(write: Callable) -> Callable:
    """Write into each parameter through ``.data``, which no version counts."""

    def change(neck):
        for p in neck.parameters():
            write(p.data)

    return change


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def check(neck: LLMBlockNeck, change: Callable) -> None:
    before = folded(neck)
    torch.testing.assert_close(before, plain(neck), rtol=1e-4, atol=1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        change(neck)
    expected = plain(neck)
    assert distance(before, expected) > 1e-2
    assert distance(folded(neck), expected) < 1e-3
