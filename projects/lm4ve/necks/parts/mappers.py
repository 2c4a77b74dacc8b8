"""Mappers that are more than a linear layer each."""

from dataclasses import dataclass
from typing import Any

from mmengine.model import Sequential
from torch import nn

from lm4ve.errors import build_from, check

#: Activations by name.
ACTS: dict[str, type[nn.Module]] = {
    'GELU': nn.GELU,
    'ReLU': nn.ReLU,
    'LeakyReLU': nn.LeakyReLU,
    'SiLU': nn.SiLU,
    'Tanh': nn.Tanh,
}


@dataclass(frozen=True)
class Mappers:
    """The fields of ``mapper``. A checkpoint records them all.

    Attributes:
        bias (bool): Whether linear layers have a bias.
        depth (int): 1 or 2 linear layers each, with GELU between two. The width between
            them is C in both mappers.
        act (str, optional): An activation after each mapper: 'GELU', 'ReLU',
            'LeakyReLU', 'SiLU' or 'Tanh'.
        skip (str, optional): Send the outer residual through a linear layer ``C -> C``
            and this activation (``llm_out_nn`` of arXiv 2403.17343: 'LeakyReLU').
    """

    bias: bool = False
    depth: int = 1
    act: str | None = None
    skip: str | None = None

    def __post_init__(self) -> None:
        check('neck.mapper.bias', self.bias, choices=(True, False))
        check('neck.mapper.depth', self.depth, choices=(1, 2))
        check('neck.mapper.act', self.act, choices=(None, *ACTS))
        check('neck.mapper.skip', self.skip, choices=(None, *ACTS))

    def build_in(self, channels: int, width: int) -> nn.Module:
        """Build the mapper before the block, ``C -> D``."""
        return self._build(channels, width, between=channels)

    def build_out(self, channels: int, width: int) -> nn.Module:
        """Build the mapper after the block, ``D -> C``."""
        return self._build(width, channels, between=channels)

    def build_skip(self, channels: int) -> nn.Module | None:
        """Build the layer of the outer residual, ``C -> C``; None without one."""
        if self.skip is None:
            return None
        linear = nn.Linear(channels, channels, self.bias)
        act = ACTS[self.skip]()
        skip: nn.Module = Sequential(linear, act)
        return skip

    def _build(self, width_in: int, width_out: int, between: int) -> nn.Module:
        """Build a mapper ``width_in -> width_out`` of one or two linear layers.

        Args:
            width_in, width_out (int): Channels of its input and output.
            between (int): Channels between two layers.
        """
        layers: list[nn.Module] = []
        if self.depth == 1:
            layers.append(nn.Linear(width_in, width_out, self.bias))
        else:
            layers.append(nn.Linear(width_in, between, self.bias))
            layers.append(nn.GELU())
            layers.append(nn.Linear(between, width_out, self.bias))
        if self.act is not None:
            layers.append(ACTS[self.act]())
        if len(layers) == 1:
            return layers[0]  # 'mapper_in.weight', not 'mapper_in.0.weight'
        mapper: nn.Module = Sequential(*layers)
        return mapper


def parse_mapper(fields: Any) -> Mappers | None:
    """Parse the field ``mapper``; None: the paper's mappers.

    Raises:
        UserError: It is no dict, or a field has no such value.
    """
    if fields is None:
        return None
    return build_from(Mappers, fields, 'neck.mapper')
