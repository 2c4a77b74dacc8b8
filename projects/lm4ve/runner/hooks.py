"""Hooks of a training: checkpoints, a loss that is finite, a block that is in use.

MMEngine writes a checkpoint straight to its final name and deletes the one before it
first; a full disk or a killed job then leaves none. It pickles its message hub,
which ``torch.load(weights_only=True)`` rightly refuses (mmengine issue 1655). It loads
what fits and logs the rest, so that a test of another model's checkpoint ends with a
score near chance and exit status 0. And it trains on with weights that are NaN and
overwrites good ones.
"""

import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_world_size, is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer, print_log
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from torch.distributed.fsdp import FullyShardedDataParallel

from lm4ve.blocks.provenance import accept_records
from lm4ve.compat.mmengine_runner_state import source_of, starts_training
from lm4ve.compat.mmengine_save_order import SavesBeforeDeleting
from lm4ve.errors import UserError, listing, require
from lm4ve.files import clear_left_behind, write_atomically
from lm4ve.llm.finite import check_finite
from lm4ve.necks import LLMBlockNeck
from lm4ve.necks.usage import ADVICE, NeckUsage, inspect_usage, is_compiled, watch_necks
from lm4ve.registry import HOOKS
from lm4ve.runner.checkpoint_files import load_strictly, select_state
from lm4ve.runner.same_data import SameDataHook, innermost

Checkpoint = dict[str, Any]
_GRADIENTS = 'lm4ve_gradients'
#: Marks the plain form of a scalar's history.
_HISTORY = 'lm4ve_history'
_SCALARS: tuple[Any, ...] = (bool, int, float, complex, str, bytes, bytearray)
_TORCH = (torch.Tensor, torch.dtype, torch.device)


@register_backend('lm4ve_atomic')
class AtomicLocalBackend(LocalBackend):  # type: ignore[misc]
    """MMEngine's local backend with atomic writes."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes; see :func:`lm4ve.files.write_atomically`."""
        write_atomically(obj, filepath)


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
        if isinstance(self.file_backend, LocalBackend) and not (
            self.backend_args or self.file_client_args
        ):
            self.backend_args = dict(backend='lm4ve_atomic')
            if is_main_process():
                for folder in {str(self.out_dir), str(runner.work_dir)}:
                    for path in clear_left_behind(folder):
                        runner.logger.info(
                            f"Deleted '{path}', which a killed run left half done."
                        )

    def before_save_checkpoint(self, runner: Runner, checkpoint: Checkpoint) -> None:
        """Store gradients that wait for more batches (``accumulative_counts``).

        Of one process only: each of several has other ones.
        """
        wrapper = runner.optim_wrapper
        is_one = isinstance(wrapper, OptimWrapper) and not isinstance(
            wrapper, OptimWrapperDict
        )
        if is_one and get_world_size() == 1 and not wrapper.should_update():
            named = runner.model.named_parameters()
            checkpoint[_GRADIENTS] = {k: p.grad for k, p in named if p.grad is not None}

    def after_load_checkpoint(self, runner: Runner, checkpoint: Checkpoint) -> None:
        """Keep stored gradients until training goes on."""
        self._gradients = checkpoint.get(_GRADIENTS)


def _to_plain(value: Any, path: str) -> Any:
    """Return the same data in the types that every safe loader builds.

    These are dicts, lists, tuples, sets, tensors, Python's numbers and text. Their
    subclasses (named tuples, defaultdicts, enumerations of numbers) and numpy's numbers
    and arrays become those; of any other object its text is stored, with a warning.

    Args:
        value (Any): A part of a checkpoint.
        path (str): Its place there, for the warning.
    """
    if isinstance(value, HistoryBuffer):
        history, counts = (torch.as_tensor(np.asarray(x)) for x in value.data)
        return {
            _HISTORY: history,
            'counts': counts,
            'max_length': int(value.max_length),
        }
    if isinstance(value, (np.generic, np.ndarray)):
        return _to_plain(value.tolist(), path)
    if isinstance(value, Mapping):
        return _plain_mapping(value, path)
    if isinstance(value, (set, frozenset)):
        return {_to_plain(v, path) for v in value}
    if isinstance(value, (list, tuple)):
        items = [_to_plain(v, f'{path}.{i}') for i, v in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else items
    if isinstance(value, Enum):
        return _to_plain(value.value, path)
    for kind in _SCALARS:
        if isinstance(value, kind):
            return kind(value)
    if value is None or isinstance(value, _TORCH):
        return value
    text = f'{path} of the checkpoint is a {type(value).__name__}: its text was saved instead.'
    print_log(text, logger='current', level=logging.WARNING)
    return str(value)


def _plain_mapping(mapping: Mapping[Any, Any], path: str) -> dict[Any, Any]:
    """Return a mapping as a dict of plain data.

    Functions among a scheduler's attributes (one-cycle has one) are dropped: a
    scheduler is built from its config before its state is loaded, so it has them
    already.
    """
    plain = {
        k: _to_plain(v, f'{path}.{k}') for k, v in mapping.items() if not callable(v)
    }
    if not hasattr(mapping, '_metadata'):
        return plain
    state: OrderedDict[Any, Any] = OrderedDict(
        plain
    )  # a model's, with the versions of its modules
    state._metadata = mapping._metadata  # type: ignore[attr-defined]
    return state


@HOOKS.register_module()
class PlainCheckpointHook(Hook):  # type: ignore[misc]
    """Store plain data only, so that checkpoints load safely.

    ``torch.load(weights_only=True)`` accepts tensors and plain containers.
    MMEngine's history buffers become dicts of tensors on saving and are rebuilt
    on loading. Stock MMEngine resumes such a file too, without the history. Runners
    that our commands build have this hook.
    """

    # After every other hook that touches the checkpoint.
    priority = 'LOWEST'

    def before_save_checkpoint(self, runner: Runner, checkpoint: Checkpoint) -> None:
        """Turn everything in the checkpoint into plain data, in place."""
        for key, value in checkpoint.items():
            checkpoint[key] = _to_plain(value, key)

    def after_load_checkpoint(self, runner: Runner, checkpoint: Checkpoint) -> None:
        """Rebuild the history buffers in the checkpoint, in place."""
        hub = checkpoint.get('message_hub')
        scalars: Any = hub.get('log_scalars') if isinstance(hub, dict) else None
        for name, value in scalars.items() if isinstance(scalars, dict) else ():
            if isinstance(value, dict) and _HISTORY in value:
                history, counts = (value[k].cpu().numpy() for k in (_HISTORY, 'counts'))
                scalars[name] = HistoryBuffer(history, counts, value['max_length'])


@HOOKS.register_module()
@dataclass(eq=False)
class WholeCheckpointHook(SameDataHook):
    """Refuse a checkpoint that does not fit the model, by the names of its tensors, or the data.

    This holds for evaluation and for ``resume``. Training that begins with
    ``load_from`` may take a part of a file, as fine-tuning does. Models that FSDP has
    split are not checked. Weights that are NaN or infinite are always refused.

    Args:
        allow_partial (bool): Load what fits and log the rest, as MMEngine does.
    """

    # After the hooks that change the state, such as EMA's.
    priority = 'LOWEST'
    allow_partial: bool = False

    def after_load_checkpoint(self, runner: Runner, checkpoint: Checkpoint) -> None:
        """Load the state strictly; what MMEngine then loads is the same.

        Raises:
            UserError: The file holds no state of a model.
            CheckpointError: Tensors are missing, unknown, of another shape or not
                finite.
        """
        super().after_load_checkpoint(runner, checkpoint)
        model = innermost(runner.model)
        origin = f"The checkpoint '{source_of(runner)}'"
        state = checkpoint.get('state_dict', checkpoint)
        is_split = any(isinstance(m, FullyShardedDataParallel) for m in model.modules())
        if self.allow_partial or is_split or starts_training(runner):
            check_finite(state, origin, dict(model.named_buffers()))
        if starts_training(runner) or is_split:
            return
        if self.allow_partial:
            accept_records(model, state)
            return
        plain: OrderedDict[str, Any] = OrderedDict(select_state(dict(state_dict=state)))
        plain._metadata = getattr(state, '_metadata', {})  # type: ignore[attr-defined]
        load_strictly(model, plain, origin)


@HOOKS.register_module()
@dataclass(eq=False)
class FiniteLossHook(Hook):  # type: ignore[misc]
    """Raise at the first iteration whose loss is NaN or infinite.

    Nothing of that iteration is saved, so that the newest checkpoint is a good one.
    Weights are checked before each saving, since a finite loss may have a gradient that
    is not.

    Args:
        tolerate (int): How many iterations in a row may have such a loss, for example
            with mixed precision, whose scaler skips them. -1: any number, as MMEngine
            does.
    """

    # Before the hooks that average and save.
    priority = 'ABOVE_NORMAL'
    tolerate: int = 0
    _in_a_row = 0

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        """Check the losses that the step returned.

        Raises:
            UserError: Too many in a row are not finite; it names the iteration.
        """
        losses = {
            k: torch.as_tensor(v) for k, v in (outputs or {}).items() if 'loss' in k
        }
        bad = [k for k, v in losses.items() if not torch.isfinite(v).all()]
        self._in_a_row = self._in_a_row + 1 if bad else 0
        if 0 <= self.tolerate < self._in_a_row:
            raise UserError(
                f'{", ".join(bad)} of iteration {runner.iter + 1} (epoch {runner.epoch + 1}) is '
                f'{float(losses[bad[0]].detach().mean())}: training stopped before it was saved. '
                'Lower the learning rate or clip gradients and --resume; '
                'default_hooks.finite_loss.tolerate=N permits N in a row.'
            )

    def before_save_checkpoint(self, runner: Runner, checkpoint: Checkpoint) -> None:
        """Check the weights that train.

        Raises:
            UserError: One of them is NaN or infinite.
        """
        named = runner.model.named_parameters() if self.tolerate >= 0 else ()
        bad = [k for k, p in named if p.requires_grad and not torch.isfinite(p).all()]
        if bad:
            raise UserError(
                f'After iteration {runner.iter + 1} (epoch {runner.epoch + 1}) {len(bad)} weights '
                f'are not finite and were not saved: {listing(bad)}. Clip gradients or lower the '
                'learning rate and --resume; default_hooks.finite_loss.tolerate=-1 saves them.'
            )


class StopHook(Hook):  # type: ignore[misc]
    """End a run at SIGTERM, after the iteration or the epoch and its checkpoint.

    An exception in the middle of them could be caught by what runs there; so could that
    of Ctrl-C, which then ends the run here. The handler of the commands sets ``asked``,
    the signal's number, and raises where no training loop runs (``is_running``).
    """

    priority = 'LOWEST'
    is_running = False
    asked: int | None = None

    def after_run(self, runner: Runner) -> None:
        StopHook.is_running = False

    def _after_iter(self, *_: Any, **__: Any) -> None:
        if StopHook.asked is not None:
            raise KeyboardInterrupt(StopHook.asked)

    _after_epoch = _after_iter


@HOOKS.register_module(name=['BlockInUseHook', 'NeckProgressHook'])
class NeckHook(Hook):  # type: ignore[misc]
    """Compare the model with its config, and each neck with what one iteration shows of it.

    It raises if a neck was not built, did not run, or has no part in the loss.
    Iterations whose loss is exactly zero, as a batch without truth gives it, are passed
    over. Compiled models are not watched. Before each step it sets the progress of the
    necks that depend on it: a branch with a falling weight, a growing part of the
    tokens. Runners that our tools build have it.
    """

    # Before all other hooks of a step, and those that save.
    priority = 'VERY_HIGH'
    _watched: Sequence[NeckUsage] = ()

    def before_train(self, runner: Runner) -> None:
        """Compare what was built with what the config names, and begin to watch.

        Raises:
            UserError: A host did not build the neck that it was given.
        """
        cfg, model = runner.cfg, runner.model
        host: Any = getattr(model, 'module', model)
        necks = [m for m in model.modules() if isinstance(m, LLMBlockNeck)]
        # The name in a scope ends so, and so does the class itself.
        named = repr(cfg.get('model')).count("LLMBlockNeck'")
        if named > len(necks):
            raise UserError(
                f'model.neck of the config: {type(host).__name__} built {len(necks)} of {named} '
                "type='LLMBlockNeck' and would train without the block." + ADVICE
            )
        for module in model.modules():
            _check_neck_fits(module)
        paramwise = (cfg.get('optim_wrapper') or {}).get('paramwise_cfg') or {}
        names = ''.join(f'.{name}\n' for name, _ in model.named_parameters())
        # A part that the model can have but does not (`neck=None`) is no mistake.
        keys = [k for k in paramwise.get('custom_keys') or () if k not in names]
        if unused := [k for k in keys if not hasattr(host, k.partition('.')[0] or '.')]:
            text = 'optim_wrapper.paramwise_cfg.custom_keys: no parameter matches '
            print_log(text + listing(unused), logger='current', level=logging.WARNING)
        self._following = [neck for neck in necks if neck.follows_progress]
        if not cfg.get('compile') and not is_compiled(model):
            self._watched = watch_necks(model)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        """Set the progress, from 0 in the first step to 1 in the last, by the step alone."""
        for neck in self._following:
            neck.set_progress(runner.iter / max(1, runner.max_iters - 1))

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        """Judge the first iteration, or the first with a loss.

        Raises:
            UserError: See :func:`lm4ve.necks.usage.inspect_usage`.
        """
        losses = [torch.as_tensor(v) for k, v in (outputs or {}).items() if 'loss' in k]
        if self._watched and (not losses or any(v.any() for v in losses)):
            watched, self._watched = self._watched, ()
            inspect_usage(watched)


def _check_neck_fits(host: Any) -> None:
    """Check that a neck fits its encoder and head; warn where a mean has class tokens in it.

    Raises:
        UserError: The neck would draw from the class tokens, which the head expects
            first, or gives a vector where segmentation and detection need a map.
    """
    neck, encoder = getattr(host, 'neck', None), getattr(host, 'backbone', None)
    if not isinstance(neck, LLMBlockNeck):
        return
    if {'decode_head', 'bbox_head', 'rpn_head'} & {*dir(host)}:
        require(
            neck.out_type == 'raw',
            f"model.neck.out_type='{neck.out_type}' gives a vector, but {type(host).__name__} "
            "reads a map. Fix: model.neck.out_type='raw'.",
        )
    extra = getattr(encoder, 'num_extra_tokens', 0)
    is_raw = getattr(encoder, 'out_type', 'raw') == 'raw'
    if not (extra and is_raw) or neck.num_extra_tokens == extra:
        return
    text = f'the first {extra} tokens of {type(encoder).__name__}, which are no patches. Fix: '
    text += f'model.neck.num_extra_tokens={extra}'
    pools = neck.query is not None and (neck.query.fields.mean or neck.query.fields.max)
    if neck.out_type == 'avg_featmap' or pools:
        text = (
            f"model.neck.out_type='{neck.out_type}' pools {text}, if that is not meant."
        )
        print_log(text, logger='current', level=logging.WARNING)
    elif neck.train_only is not None and neck.train_only.queries:
        raise UserError(f'model.neck.train_queries draws from {text}.')
