"""The Trainer of ``transformers`` resumes without the weights of an encoder.

Broken in transformers 5.24.0 (not reported upstream): models whose weights had other names
in older releases, ViT among them, are saved under the old names. ``from_pretrained``
translates them; ``Trainer.train(resume_from_checkpoint=...)`` gives them to
``load_state_dict(..., False)`` as they are, warns of missing keys and trains on with
initial weights. May go once the Trainer translates them too.
"""

import inspect
from types import ModuleType

from torch import nn


def is_needed(trainer: ModuleType) -> bool:
    """Return whether the Trainer loads what is in the file, and translates nothing.

    Args:
        trainer (ModuleType): ``transformers.trainer``.
    """
    source = inspect.getsource(trainer.Trainer._load_from_checkpoint)
    return 'load_state_dict(state_dict, False)' in source and 'conversion' not in source


def keep_names(model: nn.Module) -> None:
    """Let a model be saved under the names that its ``state_dict()`` has.

    ``from_pretrained`` reads those as well as the old ones.

    Args:
        model (nn.Module): Any; models of other libraries stay as they are.
    """
    if any(c.__module__ == 'transformers.modeling_utils' for c in type(model).__mro__):
        model._weight_conversions = []  # type: ignore[assignment]
