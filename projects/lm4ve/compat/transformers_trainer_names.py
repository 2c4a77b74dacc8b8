"""Let the Trainer of transformers resume with the weights of every encoder."""

from torch import nn


def keep_names(model: nn.Module) -> None:
    """Let a model of ``transformers`` be saved under the names of its ``state_dict()``.

    Broken in transformers 5.24.0 (not reported upstream): models whose weights had
    other names in older releases, ViT among them, are saved under the old names.
    ``from_pretrained`` translates them; ``Trainer.train(resume_from_checkpoint=...)``
    passes them to ``load_state_dict(..., False)`` as they are, warns of missing keys and
    trains on with initial weights. Both read the names of the ``state_dict()``. May go
    once the Trainer translates old names.

    Args:
        model (nn.Module): Changed in place; a model of another library stays as it is.
    """
    modules = {cls.__module__ for cls in type(model).__mro__}
    if 'transformers.modeling_utils' in modules:
        model._weight_conversions = []  # type: ignore[assignment]
