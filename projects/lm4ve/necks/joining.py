"""A host's neck beside its encoder: the class token that it reads, the norm that it takes over."""

import logging
import re
from functools import partial
from typing import Any

from mmengine.logging import print_log
from torch import Tensor, nn

from lm4ve.errors import UserError, listing
from lm4ve.necks.neck import LLMBlockNeck

_NORM = re.compile(r'norm|ln|bn', re.IGNORECASE)
#: Names of the norm that comes after the mean over tokens.
_AFTER_MEAN = ('fc_norm', 'ln2')


def join(model: Any) -> None:
    """Let a host's neck start from the final norm of its encoder's weights.

    A plain encoder's checkpoint has a final norm, which the encoder before a neck
    lacks. It becomes the neck's, by whatever way the weights are loaded: into the model
    or into its backbone.

    Args:
        model (nn.Module): A host's model with ``backbone`` and perhaps ``neck``.

    Raises:
        UserError: The neck reads a class token, and the encoder has none.
    """
    neck = _neck_of(model)[1]
    has_class = any(
        re.search('cls|class', n) for n, _ in model.backbone.named_parameters()
    )
    if neck is not None and neck.reads_class_token and not has_class:
        kind = type(model.backbone).__name__
        raise UserError(
            f'The neck reads a class token: {kind} has none. Fix: another out_type.'
        )
    if neck and neck.norm is not None:
        removed = vars(model.backbone).get('removed_norm', {})
        if removed.keys() == neck.norm.state_dict().keys():
            neck.norm.load_state_dict(removed)
        for part in (model, model.backbone):
            part.register_load_state_dict_pre_hook(partial(_load_norm, model))


def _neck_of(model: Any) -> tuple[str, Any]:
    """Return the name and the neck that a model has as ``neck``; '' and None without one."""
    necks = (nm for nm in model.named_modules() if isinstance(nm[1], LLMBlockNeck))
    return next((nm for nm in necks if nm[0].startswith('neck')), ('', None))


def _load_norm(
    model: Any, module: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any
) -> None:
    """Before a model or its backbone is loaded, move a plain encoder's final norm to the neck."""
    name, neck = _neck_of(model)
    whole = module is model
    start, own = prefix + 'backbone.' * whole, f'{prefix}{name}.norm.'
    # A backbone with a prefix is loaded as a part of the model, which has done it.
    if f'{own}weight' in state or (prefix and not whole):
        return
    mine, known = (
        neck.norm.state_dict(),
        {start + k for k in model.backbone.state_dict()},
    )
    found = []
    for key in state.keys() - known:
        norm = key.removesuffix('.weight')
        shapes = [getattr(state.get(f'{norm}.{n}'), 'shape', None) for n in mine]
        is_norm = _NORM.search(norm.rpartition('.')[2]) and key.startswith(start)
        if norm != key and is_norm and shapes == [t.shape for t in mine.values()]:
            found.append(norm)
    after_mean = neck.out_type == 'avg_featmap' and not neck.norm_first
    chosen = max(
        found, key=lambda n: (n.endswith(_AFTER_MEAN) == after_mean, n), default=None
    )
    for leaf, tensor in mine.items() if chosen else ():
        if whole:
            state[own + leaf] = state.pop(f'{chosen}.{leaf}')
        else:
            tensor.copy_(state.pop(f'{chosen}.{leaf}'))
    names = {prefix + k for k in module.state_dict()}
    missing, unknown = sorted(names - state.keys()), sorted(state.keys() - names)
    text = f'{name}.norm starts from {chosen or "its initial values"} of {len(state)} tensors. '
    text += f'Missing: {listing(missing)}. Unknown: {listing(unknown)}.'
    print_log(text, logger='current', level=logging.INFO if chosen else logging.WARNING)
