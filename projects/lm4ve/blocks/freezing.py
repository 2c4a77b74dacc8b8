"""Which parts of a block train: the table behind the field ``trainable``.

A layer is frozen part by part. A part that trains stays as it is; any other is put into
a :class:`lm4ve.blocks.Frozen`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from lm4ve.blocks.frozen import Frozen

#: Names of a block's types.
DTYPES = ('float32', 'bfloat16', 'float16')


# Which parts of a layer are frozen, by their names: `Training.freezes`.
def _every_part(name: str) -> bool:
    return True


def _no_part(name: str) -> bool:
    return False


def _all_but_norms(name: str) -> bool:
    return 'norm' not in name


@dataclass(frozen=True)
class Training:
    """What a value of ``trainable`` means.

    Attributes:
        dtypes (tuple[str, ...]): The types that such a block may have. Updates are lost
            in the rounding of 16-bit weights.
        freezes (callable): ``(name) -> bool``: whether this part of a layer is frozen.
        freezes_final_norm (bool): Whether the norm after the last layer is.
        has_adapters (bool): Whether adapters train beside what is frozen. For them the
            layers within an MLP are frozen one by one.
    """

    dtypes: tuple[str, ...]
    freezes: Callable[[str], bool]
    freezes_final_norm: bool
    has_adapters: bool = False


#: The field's values.
TRAINABLE = {
    'none': Training(
        dtypes=DTYPES,
        freezes=_every_part,
        freezes_final_norm=True,
    ),
    'norms': Training(
        dtypes=('float32',),
        freezes=_all_but_norms,
        freezes_final_norm=False,
    ),
    'all': Training(
        dtypes=('float32',),
        freezes=_no_part,
        freezes_final_norm=False,
    ),
    'lora': Training(
        dtypes=DTYPES,
        freezes=_every_part,
        freezes_final_norm=True,
        has_adapters=True,
    ),
}


def freeze_layer(layer: nn.Module, trainable: str) -> None:
    """Freeze the parts of a layer that do not train, in place.

    Args:
        layer (nn.Module): Its children are the parts.
        trainable (str): A key of :data:`TRAINABLE`.
    """
    training = TRAINABLE[trainable]
    # A part may have two names: gemma4's keys are its values too.
    frozen: dict[nn.Module, nn.Module] = {}
    for name, part in list(layer._modules.items()):
        if part is None or not training.freezes(name):
            continue
        if part not in frozen:
            frozen[part] = _freeze(name, part, training)
        setattr(layer, name, frozen[part])


def freeze_final_norm(norm: nn.Module, trainable: str) -> nn.Module:
    """Return the norm after the last layer, frozen unless it trains."""
    if TRAINABLE[trainable].freezes_final_norm:
        return Frozen(norm)
    return norm


def _freeze(name: str, part: nn.Module, training: Training) -> nn.Module:
    """Return a part of a layer frozen: as a whole, but layer by layer under adapters.

    'layer' is the library's own layer, whose parts have names of their own.
    """
    if training.has_adapters and name in ('mlp', 'layer'):
        return freeze_leaves(part)
    return Frozen(part)


def freeze_leaves(part: nn.Module) -> nn.Module:
    """Freeze a module's layers one by one, in place, so that adapters reach them.

    Returns:
        nn.Module: The module; or a :class:`Frozen` of all of it where it holds tensors
        itself, as experts and their routers do.
    """
    children = list(part.named_children())
    own_parameters = list(part.parameters(recurse=False))
    if own_parameters and children:
        return Frozen(part)
    if own_parameters:
        return FrozenLeaf(part)
    for name, child in children:
        setattr(part, name, freeze_leaves(child))
    return part


class FrozenLeaf(Frozen):
    """A frozen layer whose weight the code around it reads, as t5's MLP does for its dtype."""

    @property
    def weight(self) -> Tensor:
        """The weight."""
        weight: Tensor = self.wrapped.get_parameter('weight')
        return weight
