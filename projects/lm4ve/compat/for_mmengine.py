"""Repairs of MMEngine 0.10.7, by patches of it and by classes to derive from."""

import copy
import inspect
import re
from collections import deque
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from pathlib import Path, PurePath
from types import ModuleType, SimpleNamespace
from typing import Any

import wrapt
from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook, EMAHook
from mmengine.logging import print_log
from mmengine.runner import BaseLoop, Runner

from lm4ve.errors import UserError, check
from lm4ve.files import write_text


# ----------------------------------------------------------------- code run from a file
class _TorchWithSafeLoad(ModuleType):
    """``torch`` as a module of MMEngine sees it: its ``load`` runs nothing of a file."""

    def __init__(self, torch: ModuleType) -> None:
        super().__init__('torch')
        self._torch = torch

    def load(self, *args: Any, **kwargs: Any) -> Any:
        from lm4ve.llm.torch_files import load

        return load(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._torch, name)


def load_without_code(checkpoint: Any) -> None:
    """MMEngine's later versions execute pickles.

    True of MMEngine's main branch (0.11.0rc0) and of ``onedl-mmengine`` 0.10.12 (no
    upstream issue): what ``weights_only=True`` refuses is loaded with
    ``weights_only=False``, and the true ``getattr`` is allowed for the former. So their
    ``torch.load`` is ours, whatever they ask it for. MMEngine 0.10.7 leaves torch's
    default to an environment variable. May go once MMEngine always passes
    ``weights_only=True`` and can be given further safe objects.
    """
    checkpoint.torch = _TorchWithSafeLoad(checkpoint.torch)


def download_without_code(checkpoint: Any) -> None:
    """MMEngine executes pickles that it downloads.

    True of MMEngine 0.10.7 (no upstream issue): ``http://``, ``torchvision://`` and
    ``open-mmlab://`` checkpoints are loaded by ``torch.hub``'s function without a
    check. May go with :func:`load_without_code`.
    """
    download = checkpoint.load_url

    def load_url(*args: Any, **kwargs: Any) -> Any:
        from lm4ve.llm.torch_files import own_safe_globals

        kwargs['weights_only'] = True
        with own_safe_globals():
            return download(*args, **kwargs)

    checkpoint.load_url = load_url


def explain_bad_files(loader: Any) -> None:
    """MMEngine's loading ends in advice to run the code of a file that it refuses.

    True of MMEngine 0.10.7 (no upstream issue): torch's own errors reach the user, of
    damaged files, too; and it reads no safetensors. May go once one sentence names the
    file.
    """

    @wrapt.patch_function_wrapper(loader, 'load_checkpoint')
    def _(wrapped: Any, _: Any, args: Any, kwargs: Any) -> Any:
        from lm4ve.llm.torch_files import read_safetensors, safe_loading

        path = str(kwargs.get('filename') or args[0])
        if path.endswith('.safetensors') and '://' not in path:
            return read_safetensors(path)
        with safe_loading(path):
            return wrapped(*args, **kwargs)


def resume_without_code(module: Any) -> None:
    """Resuming executes ``meta['config']`` of a checkpoint as Python.

    True of MMEngine 0.10.7 (no upstream issue): both runners look for ``gpu_ids``
    there, where MMCV wrote it and MMEngine does not. May go once they do not.
    """
    without_config = ModuleType('mmengine')
    without_config.__dict__.update(vars(module.mmengine))
    without_config.Config = SimpleNamespace(fromstring=lambda *_, **__: {})  # type: ignore[attr-defined]
    module.mmengine = without_config


def infer_without_code(inferencer: Any) -> None:
    """An inferencer without a model executes ``meta['cfg']`` of the checkpoint as Python.

    True of MMEngine 0.10.7 (no upstream issue). May go once it does not.
    """

    @wrapt.patch_function_wrapper(inferencer, '_init_model')
    def _(wrapped: Any, _: Any, args: Any, kwargs: Any) -> Any:
        if not (kwargs['cfg'] if 'cfg' in kwargs else args[0]):
            raise UserError(
                "The checkpoint's config is Python code and is not run. Fix: give the model's "
                'config file, or its name, as model=.'
            )
        return wrapped(*args, **kwargs)


# ------------------------------------------------------------- wrong numbers in silence
def infer_from_whole_checkpoints(inferencer: Any) -> None:
    """Inferencers score whatever part of a checkpoint fits the model.

    True of MMEngine 0.10.7 (no upstream issue): it loads without ``strict``, and what
    does not fit is one line of the log. May go once it refuses such a file.
    """

    @wrapt.patch_function_wrapper(inferencer, '_load_weights_to_model')
    def _(wrapped: Callable[..., None], _: Any, args: Any, kwargs: Any) -> None:
        wrapped(*args, **kwargs)
        given = inspect.signature(wrapped).bind(*args, **kwargs).arguments
        if given['checkpoint'] is not None:
            check_checkpoint(
                given['model'], given['checkpoint'], given['cfg'], 'The checkpoint'
            )


def check_checkpoint(
    model: Any, checkpoint: dict[str, Any], cfg: Any, origin: str
) -> None:
    """Refuse a checkpoint that does not fit a model of ours.

    A model is ours if its config imports lm4ve or if it has a module of it.
    ``allow_partial`` of the config's ``WholeCheckpointHook`` is obeyed.

    Raises:
        CheckpointError: Tensors are missing, unknown or of another shape.
    """
    cfg = cfg or {}
    imports = (cfg.get('custom_imports') or {}).get('imports') or ()
    names = [imports] if isinstance(imports, str) else list(imports)
    names += [type(m).__module__ for m in model.modules()]
    hook = (cfg.get('default_hooks') or {}).get('whole_checkpoint') or {}
    if any(n.partition('.')[0] == 'lm4ve' for n in names) and not hook.get(
        'allow_partial'
    ):
        files: Any = import_module('lm4ve.runner.checkpoint_files')  # above this folder
        files.load_strictly(
            model, files.select_state(checkpoint, origin=origin), origin
        )


class UnswappedEMAHook(EMAHook):
    """MMEngine's EMA hook always evaluates the average and stores it as the weights.

    True of MMEngine 0.10.7 (mmengine issue 1678, open, asks for files of their own):
    there is no option that keeps an average beside the weights. mmpretrain's hook can
    evaluate the raw weights, but still stores the average as ``state_dict``, so that a
    test of the file scores other weights than training reported. This class never
    exchanges them. May go once MMEngine's hook can leave the weights where they are.
    """

    def _swap_ema_state_dict(self, checkpoint: dict[str, Any]) -> None:
        pass

    def _swap_ema_parameters(self) -> None:
        pass


def average_before_loading(flexible_runner: Any) -> None:
    """The FlexibleRunner cannot load a checkpoint where there is an ``EMAHook``.

    True of MMEngine 0.10.7 (no upstream issue): the hook makes its average in
    ``before_run``, which the Runner calls before it loads and the FlexibleRunner after.
    May go once it loads after ``before_run``.
    """

    @wrapt.patch_function_wrapper(flexible_runner, 'load_or_resume')
    def _(wrapped: Any, runner: Any, args: Any, kwargs: Any) -> Any:
        for hook in runner.hooks:
            if isinstance(hook, EMAHook):
                hook.before_run(runner)
                # On the instance, for the one call that is still to come.
                hook.before_run = lambda _, hook=hook: hook.__dict__.pop(
                    'before_run', None
                )
        return wrapped(*args, **kwargs)


# ---------------------------------------------------------------------------- data lost
def delete_own_files_only(checkpoint_hook: Any) -> None:
    """A better checkpoint deletes the file or folder that a resumed checkpoint names as best.

    True of MMEngine 0.10.7 (no upstream issue): ``CheckpointHook`` takes the path from
    the message hub of the file. It may lie anywhere; after a work directory was copied,
    it lies in the old one. May go once the hook looks into its own directory only.
    """
    wrapt.wrap_function_wrapper(checkpoint_hook, 'before_train', _before_train)


def _before_train(wrapped: Any, hook: Any, args: Any, kwargs: Any) -> None:
    info = (kwargs.get('runner') or args[0]).message_hub.runtime_info
    ids = info.get('keep_ckpt_ids', [])
    if not isinstance(ids, list) or not all(type(i) is int for i in ids):
        del info['keep_ckpt_ids']
    wrapped(*args, **kwargs)
    if getattr(hook, 'best_ckpt_path', None) is not None:
        hook.best_ckpt_path = info['best_ckpt'] = _own(hook, hook.best_ckpt_path)
    for key, path in (getattr(hook, 'best_ckpt_path_dict', None) or {}).items():
        if path is not None:
            own = hook.best_ckpt_path_dict[key] = _own(hook, path)
            info[f'best_ckpt_{key}'] = own


def _own(hook: Any, path: object) -> str | None:
    """Return the file of that name in the hook's own directory, if it may be the hook's."""
    name = PurePath(str(path)).name
    endings = {
        f'_{hook.filename_tmpl.format(int(n))}' for n in re.findall(r'\d+', name)
    }
    own = hook.file_backend.join_path(hook.out_dir, name)
    if (
        name.startswith('best_')
        and name.endswith(tuple(endings))
        and hook.file_backend.exists(own)
    ):
        return str(own)
    print_log(
        f"The best checkpoint so far, '{path}', is not of this run and is kept.",
        logger='current',
    )
    return None


class SavesBeforeDeleting(CheckpointHook):
    """MMEngine deletes an old checkpoint before it has written the new one.

    True of MMEngine 0.10.7 (not reported upstream): with ``max_keep_ckpts=1`` or
    ``save_best``, a full disk or a killed job at that moment leaves no checkpoint at
    all, and ``last_checkpoint`` may be left empty. This class has the other order. May
    go once MMEngine's hook saves before it deletes.
    """

    file_backend: Any

    def _save_checkpoint_with_step(
        self, runner: Runner, step: int, meta: dict[str, Any]
    ) -> None:
        ids = list(getattr(self, 'keep_ckpt_ids', ()))
        outdated: list[int] = []
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
        write_text(self.last_ckpt, Path(runner.work_dir) / 'last_checkpoint')
        for old in outdated:
            path = self.file_backend.join_path(
                self.out_dir, self.filename_tmpl.format(old)
            )
            if self.file_backend.isfile(path):
                self.file_backend.remove(path)
            elif self.file_backend.isdir(path):  # DeepSpeed's, FSDP's
                self.file_backend.rmtree(path)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict[str, Any]) -> None:
        if not self.save_best:
            return  # `runner.val()` without training: there is no backend yet
        for key in self.key_indicators:
            check('checkpoint.save_best', key, choices=['auto', *metrics])
        backend, removals = self.file_backend, []
        deferred = self.file_backend = copy.copy(backend)
        deferred.remove = lambda path: removals.append((backend.remove, path))
        deferred.rmtree = lambda path: removals.append((backend.rmtree, path))
        try:
            super()._save_best_checkpoint(runner, metrics)
        finally:
            self.file_backend = backend
        current = {getattr(self, 'best_ckpt_path', None)}
        current |= set((getattr(self, 'best_ckpt_path_dict', None) or {}).values())
        for remove, path in removals:
            if path not in current:
                remove(path)


# ---------------------------------------------------------------------------- time lost
def format_once(config: Any) -> None:
    """MMEngine formats the same text of a config five times when a training starts.

    True of MMEngine 0.10.7 (no upstream issue): the runner, a hook and two visualizers
    read ``Config.pretty_text``, for which yapf takes a tenth of a second. May go once
    it is kept.
    """
    original = config.FormatCode
    cached = lru_cache(8)(
        lambda text, style, options: original(
            text, style_config=dict(style), **dict(options)
        )
    )
    config.FormatCode = lambda text, style_config, **options: cached(
        text, tuple(style_config.items()), tuple(options.items())
    )


# ------------------------------------------------------ what the Runner keeps to itself
def starts_training(runner: Runner) -> bool:
    """Return whether a training is about to begin anew, perhaps from ``load_from``.

    True of MMEngine 0.10.7 (no upstream issue): ``Runner.train_loop`` builds the loop
    when it is read, and ``resume`` and ``load_from`` are private attributes. May go
    once the Runner has public attributes for whether it trains and whether it resumes.
    """
    return isinstance(runner._train_loop, BaseLoop) and not runner._resume


def source_of(runner: Runner) -> str:
    """Return the path that a checkpoint is loaded from, or 'given'."""
    return runner._load_from or 'given'
