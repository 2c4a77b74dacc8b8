"""A learned scalar that opens the block's branch beside a residual."""

import torch
from torch import Tensor, nn

#: Values of the field ``gate`` -> what a checkpoint records.
FORMS: dict[bool | str, str] = {False: 'none', True: 'scalar', 'tanh': 'tanh'}


def build_gate(form: str) -> nn.Parameter | None:
    """Build a gate, ``[1]``, which is zero at first; None without one.

    Args:
        form (str): 'none', 'scalar' or 'tanh'.
    """
    if form == 'none':
        return None
    return nn.Parameter(torch.zeros(1))


def open_gate(gate: Tensor | None, form: str) -> Tensor | None:
    """Return the branch's factor: the gate (ReZero) or its tanh (Flamingo).

    Args:
        gate (Tensor, optional): What :func:`build_gate` returned.
        form (str): See there.
    """
    if gate is None or form == 'scalar':
        return gate
    return gate.tanh()
