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
