"""A small encoder of nobody's library, with every kind of place."""

import torch
from torch import Tensor, nn

import lm4ve
from tests.helpers.models import BLOCK

C = 16


class Pair(nn.Module):
    """Returns its features and their number."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(C, C)

    def forward(self, x: Tensor) -> tuple[Tensor, int]:
        return self.linear(x), x.shape[1]


class Named(Pair):
    """Returns its features in a dict."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return dict(features=self.linear(x), mean=x.mean())


class Encoder(nn.Module):
    """Tokens ``[B, N, 8]`` to three classes; ``act`` runs after each of two blocks."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Linear(8, C)
        self.blocks = nn.ModuleList([nn.Linear(C, C) for _ in range(2)])
        self.act = nn.Tanh()
        self.pair = Pair()
        self.named = Named()
        self.norm = nn.LayerNorm(C)
        self.head = nn.Linear(C, 3)

    def forward(
        self, x: Tensor, after: str = '', neck: nn.Module | None = None
    ) -> Tensor:
        """Classify; ``neck`` after ``after`` is what a wrapped model should do."""

        def run(name: str, x: Tensor) -> Tensor:
            out = self.get_submodule(name)(x)
            if isinstance(out, tuple):
                out = out[0]
            elif isinstance(out, dict):
                out = out['features']
            if name == after:
                out = neck(out)
            return out

        x = run('stem', x)
        for i in range(len(self.blocks)):
            x = run(f'blocks.{i}', x)
            x = run('act', x)
        x = run('pair', x)
        x = run('named', x)
        return self.head(self.norm(x).mean(dim=1))


def loud(neck: nn.Module, std: float = 0.4) -> nn.Module:
    """Give mappers a size that shows where attention changes, or a residual is missing."""
    for mapper in (neck.mapper_in, neck.mapper_out):
        nn.init.normal_(mapper.weight, std=std)
    return neck


def batch() -> Tensor:
    """Return the same random input of :class:`Encoder` every time, ``[2, 5, 8]``."""
    return torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(1))


def wrapped(after: str = 'blocks.0', block=BLOCK, dtype=None, **options) -> Encoder:
    """Return an :class:`Encoder` with a neck after a submodule; ``options`` go to ``wrap``."""
    model = Encoder().to(dtype)
    torch.manual_seed(2)
    lm4ve.wrap(model, after, block, **options)
    return model


def step(model: nn.Module, x: Tensor | None = None) -> None:
    """Train for a step, with a rate that shows."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.5)
    if x is None:
        x = batch()
    model(x).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
