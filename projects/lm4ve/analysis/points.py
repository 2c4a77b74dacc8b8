"""Which modules of a model to look at, when the user names none.

The paper compares the encoder's output with what the block makes of it; a *point* is
a label and a module's name, with ``:input`` after it for what goes into the module.
"""

from collections.abc import Mapping, Sequence

from torch import nn

from lm4ve.errors import UserError
from lm4ve.necks import LLMBlockNeck
from lm4ve.tasks import all_tasks

#: Follows a module's name where its input is meant.
INPUT = ':input'
# What a list of an encoder's blocks is called in the hosts and here, deepest first.
_STACKS = ('blocks', 'layers', 'stages')
#: Label of a default point -> how its module's name ends, and what its tokens are.
MEANINGS = dict(
    encoder=(INPUT, 'what goes into the neck'),
    mapped=('mapper_in', "behind the trained linear layer to the language model's width"),
    block=('block', "behind the language model's block"),
    after=('mapper_out', "behind the trained linear layer back to the backbone's width"),
)


def meanings(points: Mapping[str, str]) -> dict[str, str]:
    """Explain labels to a reader.

    Args:
        points (Mapping[str, str]): Label to module name.

    Returns:
        dict[str, str]: Label to meaning, of those that :func:`default_points` chose.
    """
    return {
        label: MEANINGS[label][1]
        for label, module in points.items()
        if label in MEANINGS and module.endswith(MEANINGS[label][0])
    }


def necks_of(model: nn.Module) -> list[tuple[str, LLMBlockNeck]]:
    """List the model's :class:`LLMBlockNeck` with their names."""
    return [(n, m) for n, m in model.named_modules() if isinstance(m, LLMBlockNeck)]


def default_points(model: nn.Module) -> dict[str, str]:
    """Choose the points of a model.

    With a neck: 'encoder' (what goes into the neck, C channels), 'mapped' (what goes
    into the block, D), 'block' (what comes out of it, D) and 'after' (behind the
    second mapper, C, before the norm); of several necks, those of the last. Without:
    'encoder', the output of the encoder's last block. A task may add others, as words.

    Args:
        model (nn.Module): A host's or one of ours.

    Returns:
        dict[str, str]: Label to module name.

    Raises:
        UserError: There is no neck, and no list of blocks where hosts keep it.
    """
    necks = necks_of(model)
    further = _further_points(model)
    if necks:
        neck = necks[-1][0]
        prefix = f'{neck}.' if neck else ''
        around = dict(
            encoder=f'{neck}{INPUT}',
            mapped=f'{prefix}mapper_in',
            block=f'{prefix}block',
            after=f'{prefix}mapper_out',
        )
        return around | {k: v for k, v in further.items() if k not in around}
    if further:
        return further
    for encoder in ('backbone', 'encoder'):
        module = getattr(model, encoder, None)
        if module is None:
            continue
        for stack in _STACKS:
            blocks = getattr(module, stack, None)
            if isinstance(blocks, (nn.ModuleList, nn.Sequential)) and len(blocks):
                return dict(encoder=f'{encoder}.{stack}.{len(blocks) - 1}')
        if encoder == 'encoder':
            return dict(encoder=encoder)  # it gives tokens itself
    raise UserError(
        f'{type(model).__name__} has no LLMBlockNeck and no known list of blocks. '
        "Fix: name a module, for example points=dict(encoder='backbone.layer4')."
    )


def _further_points(model: nn.Module) -> dict[str, str]:
    """Return what the model's task looks at; nothing of a model of no task."""
    for task in all_tasks():
        if task.recognizes(type(model)):
            return task.analysis.further_points(model)
    return {}


def resolve_points(
    model: nn.Module, points: Mapping[str, str] | None
) -> dict[str, tuple[nn.Module, bool]]:
    """Look up the modules of points.

    Args:
        model (nn.Module): The model.
        points (Mapping[str, str], optional): Label to module name, by default
            :func:`default_points`.

    Returns:
        dict[str, tuple[nn.Module, bool]]: Label to module, and whether its input is
        meant.

    Raises:
        UserError: There is no such module, or it is a low-rank mapper's inside.
    """
    points = dict(points or default_points(model))
    modules = dict(model.named_modules())
    found = {}
    for label, name in points.items():
        path = name.removesuffix(INPUT)
        if path not in modules:
            parent = path
            while parent and parent not in modules:
                parent = parent.rpartition('.')[0]
            inside = [n for n, _ in modules[parent].named_children()]
            raise UserError(
                f"points['{label}']='{name}' is no module of {type(model).__name__}. Inside "
                f"'{parent or type(model).__name__}' there are: {', '.join(inside) or 'none'}."
            )
        found[label] = modules[path], name.endswith(INPUT)
    return found


def read_points(words: Sequence[str]) -> dict[str, str] | None:
    """Read ``LABEL=MODULE`` words of a command line; without words, return None.

    Raises:
        UserError: A word is not of that form, or a label is there twice.
    """
    points: dict[str, str] = {}
    for word in words:
        label, _, module = word.partition('=')
        if not label or not module or label in points:
            raise UserError(
                f"--points '{word}' must be LABEL=MODULE, each label "
                'once, for example encoder=neck:input.'
            )
        points[label] = module
    return points or None
