"""Repairs of MMEngine 0.10.7."""

import functools
import re
from pathlib import PurePath
from types import ModuleType, SimpleNamespace
from typing import Any

import wrapt
from mmengine.logging import print_log

from lm4ve.compat.repairs import repairs, source_of
from lm4ve.errors import UserError


@repairs('mmengine.registry.root', lambda root: hasattr(root.MODELS, '_locations'))
def register_blocks_on_look_up(root: ModuleType) -> None:
    """The root registry of models cannot name modules for later.

    True of MMEngine 0.10.7 (no upstream issue): a child registry takes ``locations``, to be
    imported at its first look-up, the root does not. May go once the root does.
    """
    root.MODELS._locations.extend(('lm4ve.blocks', 'lm4ve.necks'))
    root.MODELS._imported = False


@repairs('mmengine.runner.checkpoint', lambda m: 'weights_only' not in source_of(m.load_from_http))
def load_without_code(checkpoint: ModuleType) -> None:
    """MMEngine executes pickles that it downloads.

    True of MMEngine 0.10.7 (no upstream issue): ``http://``, ``torchvision://`` and
    ``open-mmlab://`` checkpoints are loaded by ``torch.hub``'s function without a check. May go
    once it passes ``weights_only=True`` and can be given further safe objects.
    """
    checkpoint.load_url = functools.partial(checkpoint.load_url, weights_only=True)

    @wrapt.patch_function_wrapper(checkpoint, 'CheckpointLoader.load_checkpoint')
    def _(wrapped: Any, _: Any, args: Any, kwargs: Any) -> Any:
        from lm4ve.llm.torch_files import is_safetensors, read_safetensors, safe_loading

        path = kwargs.get('filename') or args[0]
        if is_safetensors(path) and '://' not in str(path):
            return read_safetensors(path)
        with safe_loading(path):
            return wrapped(*args, **kwargs)


def _executes(module: Any) -> bool:
    return 'Config.fromstring(' in source_of(module)


@repairs('mmengine.runner._flexible_runner', _executes)
@repairs('mmengine.runner.runner', _executes)
def resume_without_code(module: ModuleType) -> None:
    """Resuming executes ``meta['config']`` of a checkpoint as Python.

    True of MMEngine 0.10.7 (no upstream issue): both runners look for ``gpu_ids`` there, where
    MMCV wrote it and MMEngine does not. May go once they do not.
    """
    without_config = ModuleType('mmengine')
    without_config.__dict__.update(vars(module.mmengine))
    without_config.Config = SimpleNamespace(fromstring=lambda *_, **__: {})  # type: ignore[attr-defined]
    module.mmengine = without_config


@repairs('mmengine.infer.infer', _executes)
def infer_without_code(module: ModuleType) -> None:
    """An inferencer without a model executes ``meta['cfg']`` of the checkpoint as Python.

    True of MMEngine 0.10.7 (no upstream issue). May go once it does not.
    """

    @wrapt.patch_function_wrapper(module, 'BaseInferencer._init_model')
    def _(wrapped: Any, _: Any, args: Any, kwargs: Any) -> Any:
        if not (kwargs['cfg'] if 'cfg' in kwargs else args[0]):
            raise UserError(
                "The checkpoint's config is Python code and is not run. Fix: give the model's "
                'config file, or its name, as model=.'
            )
        return wrapped(*args, **kwargs)


@repairs(
    'mmengine.runner._flexible_runner',
    lambda m: (
        (text := source_of(m.FlexibleRunner.train)).index('self.load_or_resume()')
        < text.index("self.call_hook('before_run')")
    ),
)
def average_before_loading(flexible: ModuleType) -> None:
    """The FlexibleRunner cannot load a checkpoint where there is an ``EMAHook``.

    True of MMEngine 0.10.7 (no upstream issue): the hook makes its average in ``before_run``,
    which the Runner calls before it loads and the FlexibleRunner after. May go once it loads
    after ``before_run``.
    """
    from mmengine.hooks import EMAHook

    @wrapt.patch_function_wrapper(flexible, 'FlexibleRunner.load_or_resume')
    def _(wrapped: Any, runner: Any, args: Any, kwargs: Any) -> Any:
        for hook in runner.hooks:
            if isinstance(hook, EMAHook):
                hook.before_run(runner)
                # On the instance, for the one call that is still to come.
                hook.before_run = lambda _, hook=hook: hook.__dict__.pop('before_run', None)
        return wrapped(*args, **kwargs)


@repairs(
    'mmengine.hooks.checkpoint_hook',
    lambda m: (
        "get_info(\n                        'best_ckpt')"
        in source_of(m.CheckpointHook.before_train)
    ),
)
def delete_own_files_only(checkpoint_hook: ModuleType) -> None:
    """A better checkpoint deletes the file or folder that a resumed checkpoint names as best.

    True of MMEngine 0.10.7 (no upstream issue): ``CheckpointHook`` takes the path from the
    message hub of the file. It may lie anywhere; after a work directory was copied, it lies in
    the old one. May go once the hook looks into its own directory only.
    """
    wrapt.wrap_function_wrapper(checkpoint_hook, 'CheckpointHook.before_train', _before_train)


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
    endings = {f'_{hook.filename_tmpl.format(int(n))}' for n in re.findall(r'\d+', name)}
    own = hook.file_backend.join_path(hook.out_dir, name)
    if name.startswith('best_') and name.endswith(tuple(endings)) and hook.file_backend.exists(own):
        return str(own)
    print_log(
        f"The best checkpoint so far, '{path}', is not of this run and is kept.", logger='current'
    )
    return None
