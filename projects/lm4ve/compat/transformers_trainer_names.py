"""The Trainer of transformers resumes without the weights of an encoder."""

from torch import nn


def keep_names(model: nn.Module) -> None:
    """The Trainer of ``transformers`` resumes without the weights of an encoder.

    Broken in transformers 5.24.0 (not reported upstream): models whose weights had
    other names in older releases, ViT among them, are saved under the old names.
    ``from_pretrained`` translates them; ``Trainer.train(resume_from_checkpoint=...)``
    gives them to ``load_state_dict(..., False)`` as they are, warns of missing keys and
    trains on with initial weights. This function lets a model be saved under the names
    that its ``state_dict()`` has, which ``from_pretrained`` reads too. May go once the
    Trainer translates.

    Args:
        model (nn.Module): Any; models of other libraries stay as they are.
    """
    modules = {cls.__module__ for cls in type(model).__mro__}
    if 'transformers.modeling_utils' in modules:
        model._weight_conversions = []  # type: ignore[assignment]
