"""Let MMEngine copy batches to a GPU without waiting for it."""

from typing import Any

#: Devices to which a copy that does not block saves nothing, or may be read too early.
_BLOCKING = ('cpu', 'mps')


def copy_without_waiting(preprocessor_class: Any) -> None:
    """Let data preprocessors copy to a GPU without blocking, whatever the config says.

    In MMEngine 0.10.7 (no upstream issue) a copy blocks unless the config has
    ``data_preprocessor=dict(non_blocking=True)``, which none of the host's recipes has.
    Each tensor of each sample then waits until the GPU has done the step before. Copies
    to a GPU need no wait: it runs them before the kernels that read them, and nobody
    changes a batch after the loader gave it. May go once that is the default.
    """
    preprocessor_class._non_blocking = property(_is_non_blocking, _keep_field)


def _is_non_blocking(preprocessor: Any) -> bool:
    """Return whether copies to the preprocessor's device do not block."""
    if preprocessor.device.type in _BLOCKING:
        return bool(vars(preprocessor)['_non_blocking'])
    return True


def _keep_field(preprocessor: Any, value: bool) -> None:
    """Keep what the config's field says, which counts on other devices.

    It stays where MMEngine keeps it, so that a preprocessor may be older than the repair.
    """
    vars(preprocessor)['_non_blocking'] = value
