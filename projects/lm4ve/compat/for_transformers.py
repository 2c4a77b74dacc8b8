"""Repairs of transformers 5.24.0."""

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
    if any(c.__module__ == 'transformers.modeling_utils' for c in type(model).__mro__):
        model._weight_conversions = []  # type: ignore[assignment]


def capture_afterwards(place: nn.Module) -> None:
    """What ``transformers`` captures of a layer is its output before a hook that came later.

    True of transformers 5.24.0 (not reported upstream): a backbone registers the hooks
    that capture ``hidden_states`` when it is built, any other model when it is first
    asked for them. So feature maps lack what a neck adds to the layer, unless the
    capture comes last. May go once it captures what the next layer reads.

    Args:
        place (nn.Module): A layer with the neck's hook.
    """
    for key, hook in [*place._forward_hooks.items()]:
        if getattr(hook, '__module__', '') == 'transformers.utils.output_capturing':
            place._forward_hooks.move_to_end(key)  # type: ignore[attr-defined]
