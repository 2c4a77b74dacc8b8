"""Find the device that a command or an inferencer runs on."""

import torch

from lm4ve.errors import UserError


def find_device(name: str | torch.device | None, field: str = '--device') -> torch.device:
    """Return a device that can be used.

    Args:
        name (str | torch.device, optional): Default: a GPU if there is one.
        field (str): Its name in the error.

    Raises:
        UserError: There is no such device.
    """
    if name is None:
        name = 'cuda' if torch.cuda.is_available() else 'cpu'
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as e:
        raise UserError(f"{field} '{name}' cannot be used: {str(e).splitlines()[0]}") from e
    return device
