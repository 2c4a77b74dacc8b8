"""Checkpoints that survive a crash, load without executing code, fit, and are finite.

MMEngine writes a checkpoint straight to its final name and deletes the one before it
first; a full disk or a killed job then leaves none. It pickles its message hub,
which ``torch.load(weights_only=True)`` rightly refuses (mmengine issue 1655). It loads what
fits and logs the rest, so that a test of another model's checkpoint ends with a score near
chance and exit status 0. And it trains on with weights that are NaN and overwrites good ones.
"""

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_world_size, is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from torch.distributed.fsdp import FullyShardedDataParallel

from lm4ve.blocks.provenance import accept_records
from lm4ve.compat.for_mmengine import SavesBeforeDeleting, source_of, starts_training
from lm4ve.errors import UserError, listing
from lm4ve.files import clear_left_behind, write_atomically, write_text
from lm4ve.registry import HOOKS
from lm4ve.runner.checkpoint_files import load_strictly, select_state

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


@HOOKS.register_module()
class WholeCheckpointHook(Hook):  # type: ignore[misc]
    """Refuse a checkpoint that does not fit the model, by the names of its tensors.

    This holds for evaluation and for ``resume``. Training that begins with ``load_from``
    may take a part of a file, as fine-tuning does. Models that FSDP has split are not
    checked.

    Args:
        allow_partial (bool): Load what fits and log the rest, as MMEngine does.
    """

    # After the hooks that change the state, such as EMA's.
    priority = 'LOWEST'

    def __init__(self, allow_partial: bool = False) -> None:
        self.allow_partial = allow_partial

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Load the state strictly; what MMEngine then loads is the same.

        Raises:
            UserError: The file holds no state of a model.
            CheckpointError: Tensors are missing, unknown or of another shape.
        """
        model: Any = runner.model
        while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = model.module
        is_split = any(isinstance(m, FullyShardedDataParallel) for m in model.modules())
        if starts_training(runner) or is_split:
            return
        state = checkpoint.get('state_dict', checkpoint)
        if self.allow_partial:
            accept_records(model, state)
            return
        plain: OrderedDict[str, Any] = OrderedDict(select_state(dict(state_dict=state)))
        plain._metadata = getattr(state, '_metadata', {})  # type: ignore[attr-defined]
        load_strictly(model, plain, f"The checkpoint '{source_of(runner)}'")


@HOOKS.register_module()
class FiniteLossHook(Hook):  # type: ignore[misc]
    """Raise at the first iteration whose loss is NaN or infinite.

    Nothing of that iteration is saved, so that the newest checkpoint is a good one. Weights are
    checked before each saving, since a finite loss may have a gradient that is not.

    Args:
        tolerate (int): How many iterations in a row may have such a loss, for example with
            mixed precision, whose scaler skips them. -1: any number, as MMEngine does.
    """

    # Before the hooks that average and save.
    priority = 'ABOVE_NORMAL'

    def __init__(self, tolerate: int = 0) -> None:
        self.tolerate = tolerate
        self._in_a_row = 0

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict[str, Any] | None = None,
    ) -> None:
        """Check the losses that the step returned.

        Raises:
            UserError: Too many in a row are not finite; it names the iteration.
        """
        losses = {k: v for k, v in (outputs or {}).items() if 'loss' in k}
        bad = [k for k, v in losses.items() if not torch.isfinite(torch.as_tensor(v)).all()]
        self._in_a_row = self._in_a_row + 1 if bad else 0
        if self.tolerate < 0 or self._in_a_row <= self.tolerate:
            return
        value = float(torch.as_tensor(losses[bad[0]]).detach().mean())
        raise UserError(
            f'{", ".join(bad)} of iteration {runner.iter + 1} (epoch {runner.epoch + 1}) is '
            f'{value}: training stopped before it was saved. Lower the learning rate or clip '
            'gradients and --resume; default_hooks.finite_loss.tolerate=N permits N in a row.'
        )

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Check the weights that train.

        Raises:
            UserError: One of them is NaN or infinite.
        """
        if self.tolerate < 0:
            return
        named = runner.model.named_parameters()
        bad = [k for k, p in named if p.requires_grad and not torch.isfinite(p).all()]
        if bad:
            raise UserError(
                f'After iteration {runner.iter + 1} (epoch {runner.epoch + 1}) {len(bad)} weights '
                f'are not finite and were not saved: {listing(bad)}. Clip gradients or lower the '
                'learning rate and --resume; default_hooks.finite_loss.tolerate=-1 saves them.'
            )
