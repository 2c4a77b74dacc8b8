"""Points: where in a model activations are captured.

A *point* is a label and a module's name, with ``:input`` after it for the module's
input; the paper compares the encoder's output with what the block makes of it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import nn

from lm4ve.errors import UserError, did_you_mean
from lm4ve.necks import LLMBlockNeck
from lm4ve.tasks import all_tasks

#: Follows a module's name where its input is meant.
INPUT = ':input'
#: Names of encoders in the hosts and here, and of their list of blocks, deepest first.
_ENCODERS = ('backbone', 'encoder')
_STACKS = ('blocks', 'layers', 'stages')


class ResolvedPoint(NamedTuple):
    """A point of a model.

    Attributes:
        name (str): The module's name, with ``:input`` if its input is meant.
        module (nn.Module): The module.
        is_input (bool): Whether its input is meant.
    """

    name: str
    module: nn.Module
    is_input: bool


def necks_of(model: nn.Module) -> list[tuple[str, LLMBlockNeck]]:
    """List the model's :class:`LLMBlockNeck` with their names."""
    necks = []
    for name, module in model.named_modules():
        if isinstance(module, LLMBlockNeck):
            necks.append((name, module))
    return necks


def default_points(model: nn.Module) -> dict[str, str]:
    """Choose the points of a model.

    With a neck: 'encoder' (the neck's input, C channels), 'mapped' (the block's input,
    D), 'block' (the block's output, D) and 'after' (the second mapper's output, C,
    before the norm). Of several necks, the last one counts. Without a neck: 'encoder',
    the output of the encoder's last block. A task may add others, for example the words
    of a question.

    Args:
        model (nn.Module): A host's or one of ours.

    Returns:
        dict[str, str]: Label to module name.

    Raises:
        UserError: There is no neck, and no list of blocks where hosts keep it.
    """
    points_of_task = _points_of_task(model)
    necks = necks_of(model)
    if necks:
        name, _ = necks[-1]
        prefix = f'{name}.' if name else ''
        points = {
            'encoder': f'{name}{INPUT}',
            'mapped': f'{prefix}mapper_in',
            'block': f'{prefix}block',
            'after': f'{prefix}mapper_out',
        }
        for label, module in points_of_task.items():
            points.setdefault(label, module)
        return points
    if points_of_task:
        return points_of_task
    return {'encoder': _last_block(model)}


def _points_of_task(model: nn.Module) -> dict[str, str]:
    """Return the points that the model's task adds, label -> module name; often none."""
    for task in all_tasks():
        if task.recognizes(type(model)):
            points: dict[str, str] = task.protocol.further_points(model)
            return points
    return {}


def _last_block(model: Any) -> str:
    """Return the name of the last block of a model's encoder.

    Raises:
        UserError: There is no list of blocks where hosts keep it.
    """
    for encoder in _ENCODERS:
        for stack in _STACKS:
            blocks = getattr(getattr(model, encoder, None), stack, None)
            if not isinstance(blocks, (nn.ModuleList, nn.Sequential)):
                continue
            if len(blocks) > 0:
                return f'{encoder}.{stack}.{len(blocks) - 1}'
    if hasattr(model, 'encoder'):
        return 'encoder'  # its output is tokens
    raise UserError(
        f'{type(model).__name__} has no LLMBlockNeck and no known list of blocks. '
        "Name a module, for example points=dict(encoder='backbone.layer4')."
    )


def resolve_points(
    model: nn.Module, points: Mapping[str, str] | None
) -> dict[str, ResolvedPoint]:
    """Look up the modules of points.

    Args:
        model (nn.Module): The model.
        points (Mapping[str, str], optional): Label to module name, by default
            :func:`default_points`.

    Raises:
        UserError: There is no such module.
    """
    if not points:
        points = default_points(model)
    modules = dict(model.named_modules())
    resolved = {}
    for label, name in points.items():
        path = name.removesuffix(INPUT)
        if path not in modules:
            raise UserError(
                f"points['{label}']='{name}' is no module of the model."
                f'{did_you_mean(path, modules)}'
            )
        is_input = name.endswith(INPUT)
        resolved[label] = ResolvedPoint(name, modules[path], is_input)
    return resolved


def parse_points(words: Sequence[str]) -> dict[str, str] | None:
    """Parse the words ``LABEL=MODULE`` of a command line to label -> module name.

    Without words the result is None, which chooses the default points.
    """
    if not words:
        return None
    points = {}
    for word in words:
        label, _, name = word.partition('=')
        points[label] = name
    return points
