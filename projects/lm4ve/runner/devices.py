"""Find the device that a command or an inferencer runs on."""

import torch


def find_device(name: str | torch.device | None) -> torch.device:
    """Return a device by its name; without one a GPU if there is one."""
    return torch.device(name or ('cuda' if torch.cuda.is_available() else 'cpu'))
