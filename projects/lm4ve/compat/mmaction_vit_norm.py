"""VideoMAE's ViT keeps a norm that it does not use when it gives its map.

Broken in mmaction2 1.2.0 (not reported upstream): with ``return_feat_map=True``
``VisionTransformer`` returns before ``fc_norm``. Under DDP a parameter without a
gradient stops training at the second iteration. May go once the class builds
``fc_norm`` only where it is used.
"""

import inspect
from types import ModuleType

import wrapt


def is_needed(vit_mae: ModuleType) -> bool:
    """Return whether ``fc_norm`` is built whatever the ViT returns."""
    original = inspect.unwrap(vit_mae.VisionTransformer.__init__)
    return 'not return_feat_map' not in inspect.getsource(original)


def repair(vit_mae: ModuleType) -> None:
    """Build that ViT without ``fc_norm`` where it would not be used.

    Args:
        vit_mae (ModuleType): ``mmaction.models.backbones.vit_mae``.
    """

    @wrapt.patch_function_wrapper(vit_mae, 'VisionTransformer.__init__')
    def _(original, model, args, kwargs) -> None:
        original(*args, **kwargs)
        if model.return_feat_map and getattr(model, 'fc_norm', None) is not None:
            model.fc_norm = None
