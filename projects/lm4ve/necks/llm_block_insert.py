"""``LLMBlockInsert``: a block at any place inside an encoder.

The paper compares head, middle and tail (appendix). The neck is attached to the
output of a named submodule by a forward hook, so that the encoder stays the
class it is: its weights keep their names, ``out_indices`` and layer-wise
learning rate decay work as before.
"""

from typing import Any

from mmengine.registry import MODELS
from torch import nn

from lm4ve.errors import UserError


class _ThroughNeck:
    """A forward hook that replaces a module's output by the neck's.

    An object rather than a closure: a deep copy of the model (EMA) then copies
    its reference to the neck along with the neck.
    """

    def __init__(self, neck: nn.Module) -> None:
        self.neck = neck

    def __call__(self, module: nn.Module, args: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            # Patch embeddings and Swin's stages return (tokens, grid size).
            return (self.neck(output[0]), *output[1:])
        return self.neck(output)


@MODELS.register_module()  # type: ignore[untyped-decorator]
def LLMBlockInsert(
    backbone: dict[str, Any] | nn.Module, after: str, neck: dict[str, Any] | nn.Module
) -> nn.Module:
    """Build a backbone whose named submodule's output goes through a neck.

    Args:
        backbone (dict | nn.Module): The encoder.
        after (str): Name of a submodule whose output is tokens or a map, for
            example 'layers.5', or 'drop_after_pos' for before the first block
            of mmpretrain's ViT.
        neck (dict | nn.Module): Config of :class:`lm4ve.necks.LLMBlockNeck`
            with ``out_type='raw'``. Its ``norm_cfg`` is None unless given,
            since what follows in the encoder norms its own input.

    Returns:
        nn.Module: The backbone itself, with the neck as ``llm_neck``.

    Raises:
        UserError: ``after`` names no submodule, or the neck changes the layout.
    """
    encoder: nn.Module = backbone if isinstance(backbone, nn.Module) else MODELS.build(backbone)
    built: nn.Module = (
        neck if isinstance(neck, nn.Module) else MODELS.build({'norm_cfg': None, **neck})
    )
    if getattr(built, 'out_type', 'raw') != 'raw':
        raise UserError(
            f"backbone.neck.out_type='{built.out_type}': inside an encoder the neck must give all "
            "tokens. Fix: set it to 'raw'."
        )
    modules = dict(encoder.named_modules())
    if not after or after not in modules:
        parent = after.rpartition('.')[0] if after else ''
        near = [n for n in modules if n and n.rpartition('.')[0] == parent]
        near = near or [n for n, _ in encoder.named_children()]
        raise UserError(
            f"backbone.after='{after}' is no submodule of "
            f'{type(encoder).__name__}. There are: {", ".join(near)}.'
        )
    encoder.llm_neck = built
    modules[after].register_forward_hook(_ThroughNeck(built))
    return encoder
