"""What other libraries do to a neck: adapters in place of its modules, and replicas."""

from torch import nn


class Adapter(nn.Module):
    """A module with a low-rank update beside it, as LoRA writes it."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base
        self.weight = hidden(base).weight
        self.a = nn.Linear(self.weight.shape[-1], 2, bias=False)
        self.b = nn.Linear(2, len(self.weight), bias=False)

    def forward(self, x):
        return self.base(x) + self.b(self.a(x))


def hidden(part: nn.Module) -> nn.Module:
    """Return the module that holds a frozen part's weights."""
    return getattr(part, 'wrapped', part)


def replicate(module: nn.Module) -> nn.Module:
    """A replica of DataParallel, on the same device."""
    replica = module._replicate_for_data_parallel()
    for name, child in module.named_children():
        replica._modules[name] = replicate(child)
    for name in module._parameters:
        # A replica has plain tensors, not parameters.
        parameter = getattr(module, name)
        setattr(replica, name, None if parameter is None else parameter.clone())
    return replica
