"""Repairs of released versions of the frameworks that lm4ve extends.

There is one file a library. A repair is a function or a class whose docstring names the
defect, the versions that have it, where it is reported upstream, and when it may go; a
test fails once a repair is no longer needed. A repair is imported and runs right after
the import of the module that it repairs, so that a run pays only for the libraries that
it uses.

Repairs replace names that a library keeps to itself. Another version or a fork may lack
such a name; then there is nothing to replace, and the repair is passed over
(:func:`repair`).
"""

import warnings
from importlib import import_module
from types import ModuleType
from typing import Any

import wrapt

# Warnings at the import of mmcv-lite, of an operator that no model here uses, and of
# MMEngine, of setuptools.
warnings.filterwarnings('ignore', 'Fail to import ``MultiScaleDeformable')
warnings.filterwarnings('ignore', 'pkg_resources is deprecated')
_CHECKPOINT = 'mmengine.runner.checkpoint'
_FLEXIBLE = 'mmengine.runner._flexible_runner'
_INFERENCER = 'mmengine.infer.infer:BaseInferencer'
_CLASSIFIERS = 'mmpretrain.models.classifiers'
#: Module of a library, after whose import they run -> its repairs: what each replaces,
#: as module:name, and file:function of this package. The function gets what holds the
#: name.
REPAIRS = {
    'mmengine.runner': {
        f'{_CHECKPOINT}:torch': 'for_mmengine:load_without_code',
        f'{_CHECKPOINT}:load_url': 'for_mmengine:download_without_code',
        f'{_CHECKPOINT}:CheckpointLoader.load_checkpoint': 'for_mmengine:explain_bad_files',
        'mmengine.runner.runner:mmengine': 'for_mmengine:resume_without_code',
        f'{_FLEXIBLE}:mmengine': 'for_mmengine:resume_without_code',
        f'{_FLEXIBLE}:FlexibleRunner.load_or_resume': 'for_mmengine:average_before_loading',
        'mmengine.hooks:CheckpointHook.before_train': 'for_mmengine:delete_own_files_only',
        'mmengine.config.config:FormatCode': 'for_mmengine:format_once',
    },
    'mmengine.infer.infer': {
        f'{_INFERENCER}._init_model': 'for_mmengine:infer_without_code',
        f'{_INFERENCER}._load_weights_to_model': 'for_mmengine:infer_from_whole_checkpoints',
    },
    'mmpretrain.utils.dependency': {
        'mmpretrain.utils.dependency:WITH_MULTIMODAL': 'for_mmpretrain:import_without_extras'
    },
    f'{_CLASSIFIERS}.hugging_face': {
        f'{_CLASSIFIERS}.hugging_face:HuggingFaceClassifier.__init__': (
            'for_mmpretrain:refuse_unbuilt_neck'
        )
    },
    f'{_CLASSIFIERS}.timm': {
        f'{_CLASSIFIERS}.timm:TimmClassifier.__init__': 'for_mmpretrain:refuse_unbuilt_neck'
    },
    f'{_CLASSIFIERS}.image': {
        f'{_CLASSIFIERS}.image:ImageClassifier.__init__': 'for_mmpretrain:load_plain_encoders'
    },
    'mmpretrain.apis.base': {
        'mmpretrain.apis.base:load_checkpoint': 'for_mmpretrain:load_whole_checkpoints'
    },
    'mmpretrain.apis.model': {
        'mmpretrain.apis.model:get_model': 'for_mmpretrain:load_whole_checkpoints'
    },
    'mmaction.registry': {
        'mmaction.registry:__file__': 'for_mmaction:import_without_missing_parts'
    },
    'mmaction.models.backbones.vit_mae': {
        'mmaction.models.backbones.vit_mae:VisionTransformer.__init__': (
            'for_mmaction:drop_unused_norm'
        )
    },
    'mmaction.models.recognizers.base': {
        'mmaction.models.recognizers.base:BaseRecognizer.__init__': (
            'for_mmaction:build_recognizers'
        )
    },
    'mmaction.models.recognizers.recognizer2d': {
        'mmaction.models.recognizers.recognizer2d:Recognizer2D.extract_feat': (
            'for_mmaction:accept_one_map'
        )
    },
    'mmaction.apis.inference': {
        'mmaction.apis.inference:load_checkpoint': 'for_mmpretrain:load_whole_checkpoints'
    },
    'mmdet': {'mmdet:__name__': 'for_mmcv:import_without_operators'},
    'mmdet.models': {'mmdet.models:__name__': 'for_mmpretrain:import_layer_of_mmdet'},
    'mmseg': {'mmseg:__name__': 'for_mmcv:import_without_operators'},
}


def repair(module: ModuleType) -> None:
    """Run the repairs of a module that has just been imported, but of names that are there."""
    for target, function in REPAIRS[module.__name__].items():
        holder = holder_of(target)
        if holder is None:
            continue
        file, _, name = function.partition(':')
        getattr(import_module(f'{__name__}.{file}'), name)(holder)


def holder_of(target: str) -> Any:
    """Return the module or class that holds a name, written module:name, or None without one."""
    module_name, _, path = target.partition(':')
    try:
        holder: Any = import_module(module_name)
    except ImportError:
        return None
    *owners, last = path.split('.')
    for owner in owners:
        holder = getattr(holder, owner, None)
    return holder if hasattr(holder, last) else None


for _module in REPAIRS:
    wrapt.register_post_import_hook(repair, _module)
