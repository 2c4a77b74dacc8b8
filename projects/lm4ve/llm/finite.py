"""Refuse weights from a file that are NaN or infinite.

A model with such weights computes NaN for every sample, and its evaluation ends with a score near
chance.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from lm4ve.errors import CheckpointError, listing


def is_finite(tensor: Tensor) -> bool:
    """Return whether all values of a tensor are finite numbers."""
    if tensor.numel() == 0:
        return True
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    if not tensor.is_floating_point():
        return True
    if tensor.element_size() == 1:  # float8 has no minimum
        tensor = tensor.float()
    # The extremes are NaN where any value is: one pass, without a mask of the tensor's
    # size.
    extremes = torch.stack(torch.aminmax(tensor))
    return bool(extremes.isfinite().all())


def check_finite(
    state: Mapping[str, object],
    origin: str,
    buffers: Mapping[str, Tensor] | None = None,
) -> None:
    """Refuse tensors that are not finite.

    Args:
        state (Mapping): Tensors by name; other entries are passed over.
        origin (str): The file that has them, for the error.
        buffers (Mapping, optional): The model's own buffers, before anything is loaded.
            A mask may be infinite in a file where it is in the model.

    Raises:
        CheckpointError: It names the first of them.
    """
    own = buffers or {}
    wrong = []
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor) or is_finite(tensor):
            continue
        if not _are_infinite_alike(tensor, own.get(name)):
            wrong.append(name)
    if wrong:
        raise CheckpointError(
            f'{origin} has weights that are NaN or infinite, in {len(wrong)} tensors: '
            f'{listing(wrong, 3)}. Fix: take an earlier checkpoint.'
        )


def _are_infinite_alike(stored: Tensor, own: Tensor | None) -> bool:
    """Return whether two tensors have the same infinite values at the same places."""
    if own is None or own.shape != stored.shape or stored.isnan().any():
        return False
    of_file = torch.where(stored.isinf(), stored.sign(), 0)
    of_model = torch.where(own.isinf(), own.sign(), 0)
    return torch.equal(of_file.cpu().float(), of_model.cpu().float())
