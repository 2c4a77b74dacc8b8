"""A plain VideoMAE checkpoint's ``fc_norm`` has no place in a model with our neck.

Follows from the repair in ``mmaction_vit_norm.py`` (mmaction2 1.2.0): the norm comes
after the block, so the neck has it, under another name. May go only if the neck's
norm and the ViT's ever share a name.
"""

from types import ModuleType

import wrapt


def is_needed(base: ModuleType) -> bool:
    """Return True: the names differ by design."""
    return True


def repair(base: ModuleType) -> None:
    """Load a plain ViT's ``backbone.fc_norm`` into the neck's norm.

    Where the backbone has that norm itself, or the checkpoint has one for the
    neck, nothing is changed.

    Args:
        base (ModuleType): ``mmaction.models.recognizers.base``.
    """

    @wrapt.patch_function_wrapper(base, 'BaseRecognizer.__init__')
    def _(original, model, args, kwargs) -> None:
        original(*args, **kwargs)
        # A child sees its own keys only, so the model has to do it.
        model.register_load_state_dict_pre_hook(_hand_over)


def _hand_over(model, state_dict, prefix, *args) -> None:
    norm = getattr(getattr(model, 'neck', None), 'norm', None)
    if norm is None or getattr(model.backbone, 'fc_norm', None) is not None:
        return
    for name in ('weight', 'bias'):
        key = f'{prefix}backbone.fc_norm.{name}'
        if key in state_dict:
            value = state_dict.pop(key)
            state_dict.setdefault(f'{prefix}neck.norm.{name}', value)
