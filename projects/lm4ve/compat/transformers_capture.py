"""Let ``hidden_states`` of transformers' models include what a neck adds to a layer."""

from torch import nn


def capture_afterwards(layer: nn.Module) -> None:
    """Move the hooks by which ``transformers`` captures a layer's output behind all others.

    Forward hooks run in the order of their registration, and each may change the
    output.

    Broken in transformers 5.24.0 (not reported upstream): a backbone registers the hooks
    that capture ``hidden_states`` when it is built, before a neck adds its own hook
    (other models do so when the states are first requested). Its feature maps then lack
    what the neck adds. May go once transformers captures what the next layer reads.

    Args:
        layer (nn.Module): A layer with the neck's hook.
    """
    for key, hook in list(layer._forward_hooks.items()):
        if getattr(hook, '__module__', '') == 'transformers.utils.output_capturing':
            layer._forward_hooks.move_to_end(key)  # type: ignore[attr-defined]
