"""mmpretrain's ``HuggingFaceClassifier`` drops arguments that it does not know.

Broken in mmpretrain 1.2.0 (not reported upstream) with ``pretrained=False``: whatever is
not an argument goes to ``AutoConfig.from_pretrained``, which keeps it or ignores it, so
that a model with ``neck=`` trains without it. May go once the class refuses a neck.
"""

import inspect
from types import ModuleType

import wrapt

from lm4ve.errors import UserError


def is_needed(hugging_face: ModuleType) -> bool:
    """Return whether the class takes any argument and none of the name ``neck``."""
    original = inspect.unwrap(hugging_face.HuggingFaceClassifier.__init__)
    parameters = inspect.signature(original).parameters
    return 'kwargs' in parameters and 'neck' not in parameters


def repair(hugging_face: ModuleType) -> None:
    """Refuse a neck.

    Args:
        hugging_face (ModuleType): ``mmpretrain.models.classifiers.hugging_face``.
    """

    @wrapt.patch_function_wrapper(hugging_face, 'HuggingFaceClassifier.__init__')
    def _(original, model, args, kwargs) -> None:
        if kwargs.get('neck') is not None:
            raise UserError(
                "model.neck: mmpretrain's HuggingFaceClassifier builds no neck, so that the block "
                "would do nothing. Fix: type='mmpretrain.ImageClassifier' with one of mmpretrain's "
                'backbones.'
            )
        original(*args, **kwargs)
