"""VideoMAE's ViT keeps a norm that it does not use when it gives its map.

mmaction2's ``VisionTransformer(return_feat_map=True)`` returns before
``fc_norm``. Under DDP a parameter without a gradient stops training at the
second iteration. The norm's place is after the block: the neck has it, and
takes its weights from checkpoints of the plain ViT.
"""
from functools import wraps


def drop_unused_norm(vit: type) -> None:
    """Build that ViT without ``fc_norm`` where it would not be used.

    Args:
        vit (type): mmaction2's ``VisionTransformer``.
    """
    original = vit.__init__
    if getattr(original, '_lm4ve', False):
        return

    @wraps(original)
    def __init__(self, *args, **kwargs) -> None:
        original(self, *args, **kwargs)
        if self.return_feat_map and getattr(self, 'fc_norm', None) is not None:
            self.fc_norm = None

    __init__._lm4ve = True
    vit.__init__ = __init__


def hand_norm_to_neck(recognizer: type) -> None:
    """Load a plain ViT's ``backbone.fc_norm`` into the neck's norm.

    Where the backbone has that norm itself, or the checkpoint has one for the
    neck, nothing is changed.

    Args:
        recognizer (type): mmaction2's ``BaseRecognizer``.
    """
    original = recognizer.__init__
    if getattr(original, '_lm4ve_norm', False):
        return

    @wraps(original)
    def __init__(self, *args, **kwargs) -> None:
        original(self, *args, **kwargs)
        # A child sees its own keys only, so the model has to do it.
        self._register_load_state_dict_pre_hook(_hand_over, with_module=True)

    __init__._lm4ve_norm = True
    recognizer.__init__ = __init__


def _hand_over(model, state_dict, prefix, *args) -> None:
    norm = getattr(getattr(model, 'neck', None), 'norm', None)
    if norm is None or getattr(model.backbone, 'fc_norm', None) is not None:
        return
    for name in ('weight', 'bias'):
        key = f'{prefix}backbone.fc_norm.{name}'
        if key in state_dict:
            value = state_dict.pop(key)
            state_dict.setdefault(f'{prefix}neck.norm.{name}', value)
