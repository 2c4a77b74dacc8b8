"""Checkpoints that survive a crash and load without executing code.

MMEngine writes a checkpoint straight to its final name and deletes the one
before it first; a full disk or a killed job then leaves none. It also pickles
its message hub, which ``torch.load(weights_only=True)`` rightly refuses.
"""

from collections import deque
from pathlib import Path

import numpy as np
import torch
from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook, Hook
from mmengine.logging import HistoryBuffer

from lm4ve.engine.files import write_atomically, write_text
from lm4ve.registry import HOOKS

#: What to do when a checkpoint cannot be written.
_FIX = (
    'make room (or set default_hooks.checkpoint.max_keep_ckpts, or work_dir on '
    'another disk), then continue with --resume'
)


@register_backend('lm4ve_atomic')
class AtomicLocalBackend(LocalBackend):
    """MMEngine's local backend with atomic writes."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        write_atomically(obj, filepath, _FIX)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        write_atomically(obj.encode(encoding), filepath, _FIX)


class _DeferredRemoval:
    """A file backend that collects removals instead of carrying them out."""

    def __init__(self, backend) -> None:
        self.backend = backend
        self.removals: list = []

    def __getattr__(self, name: str):
        return getattr(self.backend, name)

    def remove(self, filepath: str) -> None:
        self.removals.append((self.backend.remove, filepath))

    def rmtree(self, dir_path: str) -> None:
        self.removals.append((self.backend.rmtree, dir_path))


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """``CheckpointHook`` that never has fewer good files than before.

    The new checkpoint is written beside its name and renamed; outdated ones
    are deleted after that. Takes the arguments of MMEngine's hook; on remote
    storage (``backend_args``) the order is kept and writing is MMEngine's.
    """

    def before_train(self, runner) -> None:
        super().before_train(runner)
        if (
            isinstance(self.file_backend, LocalBackend)
            and self.backend_args is None
            and self.file_client_args is None
        ):
            self.backend_args = dict(backend='lm4ve_atomic')

    def _save_checkpoint_with_step(self, runner, step, meta) -> None:
        # MMEngine's, with saving before deleting.
        ids = list(getattr(self, 'keep_ckpt_ids', ()))
        outdated: list = []
        if self.max_keep_ckpts > 0 and ids[-1:] != [step]:
            ids.append(step)
            outdated = ids[: -self.max_keep_ckpts]
            ids = ids[-self.max_keep_ckpts :]
            self.keep_ckpt_ids = deque(ids, self.max_keep_ckpts)
            runner.message_hub.update_info('keep_ckpt_ids', ids)
        filename = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, filename)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            filename,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if not is_main_process():
            return
        write_text(self.last_ckpt, Path(runner.work_dir) / 'last_checkpoint', _FIX)
        for old in outdated:
            path = self.file_backend.join_path(
                self.out_dir, self.filename_tmpl.format(old)
            )
            if self.file_backend.isfile(path):
                self.file_backend.remove(path)
            elif self.file_backend.isdir(path):  # DeepSpeed's, FSDP's
                self.file_backend.rmtree(path)

    def _save_best_checkpoint(self, runner, metrics) -> None:
        if not self.save_best:
            return  # `runner.val()` without training: there is no backend yet
        backend = self.file_backend
        deferred = self.file_backend = _DeferredRemoval(backend)
        try:
            super()._save_best_checkpoint(runner, metrics)
        finally:
            self.file_backend = backend
        current = {getattr(self, 'best_ckpt_path', None)}
        current |= set((getattr(self, 'best_ckpt_path_dict', None) or {}).values())
        for remove, path in deferred.removals:
            if path not in current:
                remove(path)


def _to_plain(value):
    """numpy scalars and arrays as Python numbers and lists, at any depth."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return type(value)((k, _to_plain(v)) for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return type(value)(_to_plain(v) for v in value)
    return value


def _without_functions(value):
    """Drop the functions among a scheduler's attributes (one-cycle has one).

    A scheduler is built from its config before its state is loaded, so it has
    them already.
    """
    if isinstance(value, dict):
        return {k: _without_functions(v) for k, v in value.items() if not callable(v)}
    if isinstance(value, (list, tuple)):
        return type(value)(_without_functions(v) for v in value)
    return value


@HOOKS.register_module()
class PlainCheckpointHook(Hook):
    """Store plain data only, so that checkpoints load safely.

    ``torch.load(weights_only=True)`` accepts tensors and plain containers.
    MMEngine's history buffers become dicts of lists on saving and are rebuilt
    on loading. Stock MMEngine resumes such a file too, without the history.
    """

    # After every other hook that touches the checkpoint.
    priority = 'LOWEST'
    _MARK = 'lm4ve_history'

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        hub = checkpoint.get('message_hub')
        if hub is not None:
            hub['log_scalars'] = {
                k: self._pack(v) for k, v in hub['log_scalars'].items()
            }
            hub['runtime_info'] = _to_plain(dict(hub['runtime_info']))
            hub['resumed_keys'] = dict(hub['resumed_keys'])
        if 'param_schedulers' in checkpoint:
            checkpoint['param_schedulers'] = _without_functions(
                checkpoint['param_schedulers']
            )
        for key in ('meta', 'param_schedulers'):
            if key in checkpoint:
                checkpoint[key] = _to_plain(checkpoint[key])

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        hub = checkpoint.get('message_hub')
        if isinstance(hub, dict):
            hub['log_scalars'] = {
                k: self._unpack(v) for k, v in hub['log_scalars'].items()
            }

    def _pack(self, buffer):
        if not isinstance(buffer, HistoryBuffer):
            return _to_plain(buffer)
        history, counts = buffer.data
        return {
            self._MARK: torch.as_tensor(np.asarray(history)),
            'counts': torch.as_tensor(np.asarray(counts)),
            'max_length': int(buffer.max_length),
        }

    def _unpack(self, value):
        if not (isinstance(value, dict) and self._MARK in value):
            return value
        return HistoryBuffer(
            value[self._MARK].cpu().numpy(),
            value['counts'].cpu().numpy(),
            value['max_length'],
        )
