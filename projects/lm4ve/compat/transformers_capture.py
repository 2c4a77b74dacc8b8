"""What transformers captures of a layer lacks what later hooks add."""

from torch import nn


def capture_afterwards(place: nn.Module) -> None:
    """What ``transformers`` captures of a layer is its output before a hook that came later.

    True of transformers 5.24.0 (not reported upstream): a backbone registers the hooks
    that capture ``hidden_states`` when it is built, any other model when it is first
    asked for them. So feature maps lack what a neck adds to the layer, unless the
    capture comes last. May go once it captures what the next layer reads.

    Args:
        place (nn.Module): A layer with the neck's hook.
    """
    for key, hook in list(place._forward_hooks.items()):
        if getattr(hook, '__module__', '') == 'transformers.utils.output_capturing':
            place._forward_hooks.move_to_end(key)  # type: ignore[attr-defined]
