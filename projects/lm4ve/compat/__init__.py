"""Repairs of released versions of the frameworks that lm4ve extends.

There is one file a library. A repair is a function or a class whose docstring names the
defect, the versions that have it, where it is reported upstream, and when it may go; a test fails
once a repair is no longer needed. A repair is imported and runs right after the import of the
module that it repairs, so that a run pays only for the libraries that it uses.
"""

import warnings
from functools import partial

import wrapt

from lm4ve.compat.for_mmcv import resize_by_kernels

# Warnings at the import of mmcv-lite, of an operator that no model here uses, and of MMEngine,
# of setuptools.
warnings.filterwarnings('ignore', 'Fail to import ``MultiScaleDeformable')
warnings.filterwarnings('ignore', 'pkg_resources is deprecated')
#: Module of a library -> its repairs, as file and function of this package.
REPAIRS = {
    'mmengine.runner': (
        'for_mmengine:load_without_code',
        'for_mmengine:resume_without_code',
        'for_mmengine:average_before_loading',
        'for_mmengine:delete_own_files_only',
        'for_mmengine:format_once',
    ),
    'mmengine.infer.infer': (
        'for_mmengine:infer_without_code',
        'for_mmengine:infer_from_whole_checkpoints',
    ),
    'mmpretrain.utils.dependency': ('for_mmpretrain:import_without_extras',),
    'mmpretrain.models.classifiers.hugging_face': ('for_mmpretrain:refuse_unbuilt_neck',),
    'mmpretrain.models.classifiers.timm': ('for_mmpretrain:refuse_unbuilt_neck',),
    'mmpretrain.models.classifiers.image': ('for_mmpretrain:load_plain_encoders',),
    'mmpretrain.apis.base': ('for_mmpretrain:load_whole_checkpoints',),
    'mmpretrain.apis.model': ('for_mmpretrain:load_whole_checkpoints',),
    'mmaction.registry': ('for_mmaction:import_without_missing_parts',),
    'mmaction.models.backbones.vit_mae': ('for_mmaction:drop_unused_norm',),
    'mmaction.models.recognizers.base': ('for_mmaction:build_recognizers',),
    'mmaction.models.recognizers.recognizer2d': ('for_mmaction:accept_one_map',),
    'mmaction.apis.inference': ('for_mmpretrain:load_whole_checkpoints',),
    'mmdet': ('for_mmcv:import_without_operators',),
    'mmdet.models': ('for_mmpretrain:import_layer_of_mmdet',),
    'mmseg': ('for_mmcv:import_without_operators',),
}

for _module, _functions in REPAIRS.items():
    for _function in _functions:
        wrapt.register_post_import_hook(f'{__name__}.{_function}', _module)

#: No repair: the same pixels in less time. numba is imported by the first call that asks for it.
_resize = partial(wrapt.wrap_function_wrapper, name='imresize', wrapper=resize_by_kernels)
wrapt.register_post_import_hook(_resize, 'mmcv.image.geometric')
