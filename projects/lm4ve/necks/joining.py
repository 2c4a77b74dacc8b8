"""A host's neck beside its encoder: the class token that it reads, the norm that it takes over."""

import logging
import re
from collections.abc import Collection
from functools import partial
from typing import Any

from mmengine.logging import print_log
from torch import Tensor, nn

from lm4ve.errors import UserError, listing
from lm4ve.necks.llm_block_neck import LLMBlockNeck

_NORM = re.compile(r'norm|ln|bn', re.IGNORECASE)
#: Names of the norm that comes after the mean over tokens.
_AFTER_MEAN = ('fc_norm', 'ln2')


def join(model: Any) -> None:
    """Let a host's neck start from the final norm of its encoder's weights.

    A plain encoder's checkpoint has a final norm, which the encoder before a neck lacks. It
    becomes the neck's, by whatever way the weights are loaded: into the model or into its
    backbone.

    Args:
        model (nn.Module): A host's model with ``backbone`` and perhaps ``neck``.

    Raises:
        UserError: The neck reads a class token, and the encoder has none.
    """
    name, neck = _neck_of(model)
    if neck is None:
        return
    tensors = [n for n, _ in model.backbone.named_parameters()]
    if neck.out_type == 'cls_token' and not any(re.search('cls|class', n) for n in tensors):
        kind = type(model.backbone).__name__
        raise UserError(f"neck.out_type='cls_token': {kind} has none. Fix: out_type='avg_featmap'.")
    if neck.norm is None:
        return
    removed = vars(model.backbone).get('removed_norm', {})
    if removed.keys() == neck.norm.state_dict().keys():
        neck.norm.load_state_dict(removed)
    model.register_load_state_dict_pre_hook(partial(_load_norm, model))
    model.backbone.register_load_state_dict_pre_hook(partial(_load_norm, model))


def _neck_of(model: Any) -> tuple[str, LLMBlockNeck | None]:
    """Find the neck of a model in the place for necks, and its name."""
    modules = model.neck.named_modules(prefix='neck') if getattr(model, 'neck', None) else ()
    return next(((n, m) for n, m in modules if isinstance(m, LLMBlockNeck)), ('', None))


def _load_norm(
    model: Any, module: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any
) -> None:
    """Before a model or its backbone is loaded, move a plain encoder's final norm to the neck."""
    name, neck = _neck_of(model)
    start = 'backbone.' if module is model else ''
    own = f'{prefix}{name}.norm.'
    # A child of what is loaded has a prefix; its parent has done it then.
    if neck is None or neck.norm is None or (prefix and not start) or f'{own}weight' in state:
        return
    if not any(key.startswith(prefix + start) for key in state):
        return
    chosen = _final_norm(neck, {*model.backbone.state_dict()}, state, prefix + start)
    for leaf, mine in neck.norm.state_dict().items() if chosen else ():
        tensor = state.pop(f'{prefix}{start}{chosen}.{leaf}')
        if start:
            state[own + leaf] = tensor
        else:
            mine.copy_(tensor)
    names = {prefix + k for k in module.state_dict()}
    missing, unknown = (sorted(a - b) for a, b in ((names, {*state}), ({*state}, names)))
    print_log(
        f"{name}.norm starts from '{chosen}' of the encoder's weights"
        if chosen
        else f"{name}.norm starts anew: the encoder's weights have no final norm of its kind",
        logger='current',
        level=logging.INFO if chosen else logging.WARNING,
    )
    print_log(
        f'{len(names) - len(missing)} tensors are loaded. Not in the file: {listing(missing)}. '
        f'Not loaded of it: {listing(unknown)}.',
        logger='current',
    )


def _final_norm(
    neck: Any, own: Collection[str], state: dict[str, Tensor], prefix: str
) -> str | None:
    """Name the norm that only a checkpoint's encoder has, the last one that fits the neck's."""
    mine, found = neck.norm.state_dict(), []
    for key in state:
        module, _, leaf = key.removeprefix(prefix).rpartition('.')
        if leaf == 'weight' and key.startswith(prefix) and f'{module}.{leaf}' not in own:
            keys = [f'{prefix}{module}.{n}' for n in mine]
            if _NORM.search(module.rpartition('.')[2]) and all(
                k in state and state[k].shape == mine[n].shape
                for k, n in zip(keys, mine, strict=True)
            ):
                found.append(module)
    after_mean = neck.out_type == 'avg_featmap' and not neck.norm_first
    wanted = [m for m in found if (m.rpartition('.')[2] in _AFTER_MEAN) == after_mean]
    return next(reversed(wanted or found), None)
