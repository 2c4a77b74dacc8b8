"""Repairs of released versions of the frameworks that lm4ve extends.

There is one file a defect. A repair is a function or a class whose docstring describes
the defect, the versions that have it, where it is reported upstream, and when it may
go; a test fails once a repair is no longer needed.

``import lm4ve`` changes nothing of a model without our classes, so its repairs wait.
:func:`activate` lets all of them act, once: a repair is imported and runs where the
module that it repairs is imported, so that a run pays only for the libraries that it
uses. Who calls it:

- ``lm4ve.openmmlab``, which configs name in ``custom_imports``, and ``lm4ve`` itself where
  a config names that;
- whatever reads a config or starts a command (``lm4ve/runner``, ``lm4ve/apis``);
- the first look-up or building of a class of ours (``lm4ve/registry.py``, necks that get
  a config).

This room has the repairs that need nothing of the rooms above it. Those rooms register
theirs with :func:`register`: see ``lm4ve/runner/__init__.py``.

Repairs replace names that a library keeps to itself. Another version or a fork may lack
such a name; then there is nothing to replace, and the repair is passed over
(:func:`apply`).
"""

import functools
import warnings
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import wrapt

#: Warnings at the import of mmcv-lite, of an operator that no model here uses, and of
#: MMEngine, of setuptools.
_WARNINGS = ('Fail to import ``MultiScaleDeformable', 'pkg_resources is deprecated')


@dataclass(frozen=True)
class Repair:
    """The place of a defect in a library, and the function of ours that repairs it.

    Attributes:
        trigger (str): The module of the library after whose import the function runs.
        target (str): The library's object that the function replaces, as
            ``module:name``. The name may have dots, as ``Class.method`` has.
        function (str): The function, as ``module:name``. Its one argument is the module
            or class that holds the target.
        waits (bool): It acts once :func:`activate` is called. False: it acts from the
            import of lm4ve on, for it changes nothing of a model without our neck, and
            acts while the class is built that builds this neck.
    """

    trigger: str
    target: str
    function: str
    waits: bool = True


#: All that have been registered, in this order.
REPAIRS: list[Repair] = []

_is_active = False


def activate() -> None:
    """Let all repairs act in this process, also those that are registered later.

    Modules that are imported already are repaired at once, others after their import.
    Repairs of the same module run in the order in which they were registered.
    """
    global _is_active
    if _is_active:
        return
    _is_active = True
    for text in _WARNINGS:
        warnings.filterwarnings('ignore', text)
    for repair in REPAIRS:
        if repair.waits:
            _apply_after_import(repair)


def register(trigger: str, target: str, function: str, waits: bool = True) -> None:
    """Add a repair to those that :func:`activate` lets act.

    Args:
        trigger (str): See :class:`Repair`.
        target (str): See :class:`Repair`.
        function (str): See :class:`Repair`.
        waits (bool): See :class:`Repair`.
    """
    repair = Repair(trigger, target, function, waits)
    REPAIRS.append(repair)
    if _is_active or not waits:
        _apply_after_import(repair)


def _apply_after_import(repair: Repair) -> None:
    """Run a repair after the import of its library's module; at once if that is imported."""
    wrapt.register_post_import_hook(functools.partial(apply, repair), repair.trigger)


def apply(repair: Repair, imported: object = None) -> None:
    """Run a repair, unless the installed release lacks the name that it replaces.

    Args:
        repair (Repair): The repair. The module of its function is imported here, so
            that a run without the repaired library does not pay for it.
        imported (ModuleType, optional): Not used: ``wrapt`` passes the module whose
            import triggered the repair.
    """
    holder = holder_of(repair.target)
    if holder is None:
        return
    module_name, _, function_name = repair.function.partition(':')
    function = getattr(import_module(module_name), function_name)
    function(holder)


def holder_of(target: str) -> Any:
    """Return the module or class in which a repair replaces a name.

    Args:
        target (str): See :class:`Repair`. For ``module:Class.method`` the holder is the
            class, for ``module:name`` the module.

    Returns:
        Any: The holder. None: the installed release has no such module or name.
    """
    module_name, _, path = target.partition(':')
    try:
        holder: Any = import_module(module_name)
    except ImportError:
        return None
    *owners, last = path.split('.')
    for owner in owners:
        holder = getattr(holder, owner, None)
    if not hasattr(holder, last):
        return None
    return holder


# ----------------------------------------------------------------------------- MMEngine
register(
    'mmengine.runner',
    'mmengine.runner.checkpoint:torch',
    'lm4ve.compat.mmengine_pickles:load_without_code',
)
register(
    'mmengine.runner',
    'mmengine.runner.checkpoint:load_url',
    'lm4ve.compat.mmengine_pickles:download_without_code',
)
register(
    'mmengine.runner',
    'mmengine.runner.checkpoint:CheckpointLoader.load_checkpoint',
    'lm4ve.compat.mmengine_load_errors:explain_bad_files',
)
for _runner in ('runner', '_flexible_runner'):
    register(
        'mmengine.runner',
        f'mmengine.runner.{_runner}:mmengine',
        'lm4ve.compat.mmengine_config_code:resume_without_code',
    )
register(
    'mmengine.infer.infer',
    'mmengine.infer.infer:BaseInferencer._init_model',
    'lm4ve.compat.mmengine_config_code:infer_without_code',
)
register(
    'mmengine.runner',
    'mmengine.runner._flexible_runner:FlexibleRunner.load_or_resume',
    'lm4ve.compat.mmengine_late_average:average_before_loading',
)
register(
    'mmengine.hooks',
    'mmengine.hooks:EMAHook.after_train_iter',
    'lm4ve.compat.mmengine_average_of_updates:average_after_updates',
)
register(
    'mmengine.hooks',
    'mmengine.hooks:CheckpointHook.after_train_iter',
    'lm4ve.compat.mmengine_lost_gradients:save_after_updates',
)
register(
    'mmengine.optim',
    'mmengine.optim:OptimWrapper.initialize_count_status',
    'lm4ve.compat.mmengine_lost_gradients:count_from_an_update',
)
register(
    'mmengine.runner',
    'mmengine.runner:Runner.scale_lr',
    'lm4ve.compat.mmengine_unscaled_base_rate:scale_base_rate',
)
register(
    'mmengine.runner',
    'mmengine.hooks:CheckpointHook.before_train',
    'lm4ve.compat.mmengine_foreign_files:delete_own_files_only',
)
register(
    'mmengine.runner',
    'mmengine.config.config:FormatCode',
    'lm4ve.compat.mmengine_slow_format:format_once',
)
register(
    'mmengine.evaluator',
    'mmengine.dist.dist:collect_results_cpu',
    'lm4ve.compat.mmengine_results_in_files:collect_by_group',
)
register(
    'mmengine.model',
    'mmengine.model:BaseDataPreprocessor.cast_data',
    'lm4ve.compat.mmengine_blocking_copies:copy_without_waiting',
)
# --------------------------------------------------------------------------- mmpretrain
register(
    'mmpretrain.utils.dependency',
    'mmpretrain.utils.dependency:WITH_MULTIMODAL',
    'lm4ve.compat.mmpretrain_imports:import_without_extras',
)
register(
    'mmdet.models',
    'mmdet.models:__name__',
    'lm4ve.compat.mmpretrain_imports:import_layer_of_mmdet',
)
register(
    'mmpretrain.models.classifiers.hugging_face',
    'mmpretrain.models.classifiers.hugging_face:HuggingFaceClassifier.__init__',
    'lm4ve.compat.mmpretrain_unbuilt_neck:refuse_unbuilt_neck',
    waits=False,
)
register(
    'mmpretrain.models.classifiers.timm',
    'mmpretrain.models.classifiers.timm:TimmClassifier.__init__',
    'lm4ve.compat.mmpretrain_unbuilt_neck:refuse_unbuilt_neck',
    waits=False,
)
for _module in (
    'losses.label_smooth_loss',
    'losses.focal_loss',
    'losses.asymmetric_loss',
    'heads.margin_head',
):
    register(
        f'mmpretrain.models.{_module}',
        f'mmpretrain.models.{_module}:convert_to_one_hot',
        'lm4ve.compat.mmpretrain_one_hot:convert_without_reading',
    )
# ---------------------------------------------------------------------------- mmaction2
register(
    'mmaction.registry',
    'mmaction.registry:__file__',
    'lm4ve.compat.mmaction_imports:import_without_missing_parts',
)
register(
    'mmaction.models.backbones.vit_mae',
    'mmaction.models.backbones.vit_mae:VisionTransformer.__init__',
    'lm4ve.compat.mmaction_unused_norm:drop_unused_norm',
)
register(
    'mmaction.models.heads.base',
    'mmaction.models.heads.base:BaseHead.loss_by_feat',
    'lm4ve.compat.mmaction_bfloat16_scores:widen_bfloat16_scores',
)
register(
    'mmaction.models.recognizers.base',
    'mmaction.models.recognizers.base:BaseRecognizer.__init__',
    'lm4ve.compat.mmaction_unbuilt_parts:build_recognizers',
)
register(
    'mmaction.models.recognizers.recognizer2d',
    'mmaction.models.recognizers.recognizer2d:Recognizer2D.extract_feat',
    'lm4ve.compat.mmaction_single_maps:accept_one_map',
)
for _module in ('base', 'omni_head', 'rgbpose_head'):
    register(
        f'mmaction.models.heads.{_module}',
        f'mmaction.models.heads.{_module}:top_k_accuracy',
        'lm4ve.compat.mmaction_accuracy:compare_by_method',
    )
# -------------------------------------------------------------------------------- numpy
for _module in (
    'mmaction.evaluation.functional.accuracy',
    'mmaction.evaluation.metrics.multimodal_metric',
    'mmpretrain.evaluation.metrics.retrieval',
):
    register(
        _module,
        f'{_module}:np',
        'lm4ve.compat.numpy_removed_names:restore_removed_names',
    )
# -------------------------------------------------------------------------------- mmcv
register(
    'mmcv.image.geometric',
    'mmcv.image.geometric:imresize',
    'lm4ve.pixels.for_mmcv:resize_by_kernels',
)
register(
    'mmcv.cnn.bricks.drop',
    'mmcv.cnn.bricks.drop:DropPath.__init__',
    'lm4ve.compat.mmcv_drop_path:plain_rates',
)
register(
    'mmcv.image.io',
    'mmcv.image.io:imfrombytes',
    'lm4ve.compat.mmcv_png_notes:decode_without_notes',
)
for _host in ('mmdet', 'mmseg'):
    register(
        _host,
        f'{_host}:__name__',
        'lm4ve.compat.mmcv_operators:import_without_operators',
    )
