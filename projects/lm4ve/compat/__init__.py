"""Repairs of released versions of the frameworks that lm4ve extends.

Each defect has a file of its own, which says what is broken, in which versions, where
it is reported upstream, and when the file may go. ``is_needed()`` looks at what is
installed, and a test fails once a repair is no longer needed. Nothing is imported
for a repair: it waits until somebody imports the module that it is about.
"""

from importlib import import_module

import wrapt

#: Imported module -> the repairs that are due right after its import.
REPAIRS = {
    'mmaction.apis.inference': ('hosts_partial_inference',),
    'mmaction.registry': ('mmaction_drn', 'mmaction_multimodal'),
    'mmaction.models.backbones.vit_mae': ('mmaction_vit_norm',),
    'mmaction.models.recognizers.base': (
        'mmaction_scope',
        'mmaction_norm_to_neck',
        'mmaction_unused_neck',
        'mmaction_neck_list',
    ),
    'mmaction.models.recognizers.recognizer2d': ('mmaction_single_map',),
    'mmdet': ('mmcv_ops',),
    'mmengine.hooks.checkpoint_hook': ('mmengine_best_checkpoint',),
    'mmengine.infer.infer': ('mmengine_config_in_checkpoint', 'hosts_partial_inference'),
    'mmengine.registry.root': ('mmengine_root_models',),
    'mmengine.runner._flexible_runner': ('mmengine_config_in_checkpoint', 'mmengine_flexible_ema'),
    'mmengine.runner.checkpoint': ('mmengine_checkpoint_loading',),
    'mmengine.runner.runner': ('mmengine_config_in_checkpoint',),
    'mmpretrain.apis.base': ('hosts_partial_inference',),
    'mmpretrain.apis.model': ('hosts_partial_inference',),
    'mmpretrain.models.classifiers.hugging_face': ('mmpretrain_unbuilt_neck',),
    'mmpretrain.utils.dependency': ('mmpretrain_multimodal',),
    'mmseg': ('mmcv_ops',),
}
#: Module -> the files that override private methods of one of its classes, or read its
#: private attributes. Nothing is applied: the hooks of :mod:`lm4ve.runner` and
#: :mod:`lm4ve.necks` use them.
OVERRIDES = {
    'mmengine.hooks.checkpoint_hook': ('mmengine_checkpoint_order',),
    'mmengine.hooks.ema_hook': ('mmengine_ema_swap',),
    'mmengine.runner.runner': ('mmengine_load_reason',),
    'transformers.trainer': ('transformers_trainer_names',),
}


def apply() -> None:
    """Apply every repair as soon as the module that it is about is imported."""
    for module, names in REPAIRS.items():
        for name in names:
            _apply_after(module, f'{__name__}.{name}')


def _apply_after(module: str, repair: str) -> None:

    @wrapt.when_imported(module)
    def _(imported) -> None:
        import_module(repair).repair(imported)
