"""Which modules of a model to look at, when the user names none.

The paper compares the encoder's output with what the block makes of it; a *point* is
a label and a module's name, with ``:input`` after it for what goes into the module.
"""

from collections.abc import Mapping, Sequence

from torch import nn

from lm4ve.errors import UserError, did_you_mean
from lm4ve.necks import LLMBlockNeck
from lm4ve.tasks import all_tasks

#: Follows a module's name where its input is meant.
INPUT = ':input'
# Names of the list of an encoder's blocks in the hosts and here, deepest first.
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
    further = _further_points(model)
    if necks := necks_of(model):
        neck = necks[-1][0]
        names = dict(encoder=f'{neck}{INPUT}')
        for label in ('mapped', 'block', 'after'):
            names[label] = f'{neck}.{MEANINGS[label][0]}'.removeprefix('.')
        return names | {k: v for k, v in further.items() if k not in names}
    if further:
        return further
    for encoder in ('backbone', 'encoder'):
        for stack in _STACKS:
            blocks = getattr(getattr(model, encoder, None), stack, None)
            if isinstance(blocks, (nn.ModuleList, nn.Sequential)) and len(blocks):
                return dict(encoder=f'{encoder}.{stack}.{len(blocks) - 1}')
    if hasattr(model, 'encoder'):
        return dict(encoder='encoder')  # it gives tokens itself
    raise UserError(
        f'{type(model).__name__} has no LLMBlockNeck and no known list of blocks. '
        "Name a module, for example points=dict(encoder='backbone.layer4')."
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
        UserError: There is no such module.
    """
    modules = dict(model.named_modules())
    found = {}
    for label, name in dict(points or default_points(model)).items():
        path = name.removesuffix(INPUT)
        if path not in modules:
            close = did_you_mean(path, modules)
            raise UserError(f"points['{label}']='{name}' is no module of the model.{close}")
        found[label] = modules[path], name.endswith(INPUT)
    return found


def read_points(words: Sequence[str]) -> dict[str, str] | None:
    """Read ``LABEL=MODULE`` words of a command line; without words, return None."""
    points = dict(word.partition('=')[::2] for word in words)
    for word in words:
        if not word.partition('=')[2] or len(points) < len(words):
            raise UserError(f"--points '{word}' must be LABEL=MODULE, each label once.")
    return points or None
