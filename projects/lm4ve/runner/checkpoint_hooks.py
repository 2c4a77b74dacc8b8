"""Checkpoints that survive a crash and load without executing code.

MMEngine writes a checkpoint straight to its final name and deletes the one before it
first; a full disk or a killed job then leaves none. It also pickles its message hub,
which ``torch.load(weights_only=True)`` rightly refuses (mmengine issue 1655).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_world_size, is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner

from lm4ve.compat.mmengine_checkpoint_order import SavesBeforeDeleting
from lm4ve.files import clear_left_behind, write_atomically, write_text
from lm4ve.registry import HOOKS

Checkpoint = dict[str, Any]
_GRADIENTS = 'lm4ve_gradients'
#: Marks the plain form of a scalar's history.
HISTORY = 'lm4ve_history'


@register_backend('lm4ve_atomic')
class AtomicLocalBackend(LocalBackend):  # type: ignore[misc]
    """MMEngine's local backend with atomic writes."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes; see :func:`lm4ve.files.write_atomically`."""
        write_atomically(obj, filepath)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        """Write a text; see :func:`lm4ve.files.write_atomically`."""
        write_atomically(obj.encode(encoding), filepath)


@HOOKS.register_module()
class AtomicCheckpointHook(SavesBeforeDeleting):
    """``CheckpointHook`` that never has fewer good files than before.

    The new checkpoint is written beside its name and renamed; outdated ones
    are deleted after that. Takes the arguments of MMEngine's hook; on remote
    storage (``backend_args``) the order is kept and writing is MMEngine's.
    """

    backend_args: dict[str, Any] | None
    _gradients: dict[str, torch.Tensor] | None = None

    def before_train(self, runner: Runner) -> None:
        """Choose the atomic backend where the files are local; clear what kills left."""
        super().before_train(runner)
        if runner.iter > 0 and self._gradients:
            for name, parameter in runner.model.named_parameters():
                if name in self._gradients:
                    parameter.grad = self._gradients[name].to(parameter)
        self._gradients = None
        if (
            isinstance(self.file_backend, LocalBackend)
            and self.backend_args is None
            and self.file_client_args is None
        ):
            self.backend_args = dict(backend='lm4ve_atomic')
            if is_main_process():
                for folder in {str(self.out_dir), str(runner.work_dir)}:
                    for path in clear_left_behind(folder):
                        runner.logger.info(f"Deleted '{path}', which a killed run left half done.")

    def before_save_checkpoint(self, runner: Runner, checkpoint: Checkpoint) -> None:
        """Store gradients that wait for more batches (``accumulative_counts``).

        Of one process only: each of several has other ones.
        """
        wrapper = runner.optim_wrapper
        is_one = isinstance(wrapper, OptimWrapper) and not isinstance(wrapper, OptimWrapperDict)
        if is_one and get_world_size() == 1 and not wrapper.should_update():
            named = runner.model.named_parameters()
            checkpoint[_GRADIENTS] = {k: p.grad for k, p in named if p.grad is not None}

    def after_load_checkpoint(self, runner: Runner, checkpoint: Checkpoint) -> None:
        """Keep stored gradients until training goes on."""
        self._gradients = checkpoint.get(_GRADIENTS)

    def _write_name(self, name: str, path: Path) -> None:
        write_text(name, path)


def _to_plain(value: Any) -> Any:
    """Return the same data in dicts, lists, tuples and Python numbers.

    ``torch.load(weights_only=True)`` refuses their subclasses, such as named tuples
    and defaultdicts, and numpy's scalars and arrays. Functions among a scheduler's
    attributes (one-cycle has one) are dropped: a scheduler is built from its config
    before its state is loaded, so it has them already.
    """
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return {k: _to_plain(v) for k, v in value.items() if not callable(v)}
    for kind in (list, tuple, set):
        if isinstance(value, kind):
            return kind(map(_to_plain, value))
    return value


@HOOKS.register_module()
class PlainCheckpointHook(Hook):  # type: ignore[misc]
    """Store plain data only, so that checkpoints load safely.

    ``torch.load(weights_only=True)`` accepts tensors and plain containers.
    MMEngine's history buffers become dicts of lists on saving and are rebuilt
    on loading. Stock MMEngine resumes such a file too, without the history.
    """

    # After every other hook that touches the checkpoint.
    priority = 'LOWEST'

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Turn everything in the checkpoint into plain data, in place."""
        hub = checkpoint.get('message_hub')
        if hub is not None:
            hub['log_scalars'] = {k: self._pack(v) for k, v in hub['log_scalars'].items()}
            for key in ('runtime_info', 'resumed_keys'):
                hub[key] = _to_plain(hub[key])
        for key in ('meta', 'param_schedulers'):
            if key in checkpoint:
                checkpoint[key] = _to_plain(checkpoint[key])

    def after_load_checkpoint(self, runner: Runner, checkpoint: Checkpoint) -> None:
        """Rebuild the history buffers in the checkpoint, in place."""
        hub = checkpoint.get('message_hub')
        scalars = hub.get('log_scalars') if isinstance(hub, dict) else None
        if isinstance(hub, dict) and isinstance(scalars, dict):  # else only --resume matters
            hub['log_scalars'] = {k: self._unpack(v) for k, v in scalars.items()}

    def _pack(self, buffer: Any) -> Any:
        if not isinstance(buffer, HistoryBuffer):
            return _to_plain(buffer)
        history, counts = buffer.data
        return {
            HISTORY: torch.as_tensor(np.asarray(history)),
            'counts': torch.as_tensor(np.asarray(counts)),
            'max_length': int(buffer.max_length),
        }

    def _unpack(self, value: Any) -> Any:
        if not (isinstance(value, dict) and HISTORY in value):
            return value
        history, counts = (value[k].cpu().numpy() for k in (HISTORY, 'counts'))
        return HistoryBuffer(history, counts, value['max_length'])
