"""How a neck's mappers start, where MMEngine has no initializer for it.

The neck's field is MMEngine's ``init_cfg``. Its default, a truncated normal
distribution, is that of the released ViTs; other releases leave the mappers as torch
makes them.
"""

from mmengine.model.weight_init import BaseInit, update_init_info
from torch import nn

from lm4ve.errors import require
from lm4ve.registry import WEIGHT_INITIALIZERS


@WEIGHT_INITIALIZERS.register_module()
class TorchDefault(BaseInit):  # type: ignore[misc]
    """Initializes layers as torch does when it makes them.

    The weights and biases of ``nn.Linear`` are uniform within ``1 / sqrt(fan_in)`` of
    zero, so their standard deviation is ``1 / sqrt(3 * fan_in)``. Unlike
    ``init_cfg=None``, it replaces what the ``init_cfg`` of a model around the neck has
    drawn.

    Args:
        layer (str | list[str]): The classes of the layers, by their names in ``torch.nn``.

    Raises:
        UserError: torch has no such layer with initial values of its own.
    """

    def __init__(self, layer: str | list[str]) -> None:
        super().__init__(layer=layer)
        for name in self.layer:
            require(
                hasattr(getattr(nn, name, None), 'reset_parameters'),
                f"init_cfg.layer='{name}': torch.nn has no such layer with initial values. "
                "Fix: 'Linear', for example.",
            )

    def __call__(self, module: nn.Module) -> None:
        """Initialize the layers within a module."""
        for child in module.modules():
            # peft's own Linear has no such method; the layer within it has.
            reset_parameters = getattr(child, 'reset_parameters', None)
            is_named = type(child).__name__ in self.layer
            if is_named and reset_parameters is not None:
                reset_parameters()
        if hasattr(module, '_params_init_info'):
            update_init_info(module, init_info=self._get_init_info())

    def _get_init_info(self) -> str:
        """Return what MMEngine's log says of a parameter that this has initialized."""
        return f'{type(self).__name__}: reset_parameters of torch'
