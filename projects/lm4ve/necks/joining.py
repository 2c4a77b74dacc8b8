"""A host's neck beside its encoder: the class token that it reads, the norm that it takes over.

A plain encoder's checkpoint has a final norm, which the encoder before a neck lacks.
The neck's norm starts from it, by whatever way the weights are loaded: into the model
or into its backbone. ``lm4ve/necks/repairs.py`` lets hosts call :func:`join`.
"""

import logging
import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from mmengine.logging import print_log
from torch import Tensor, nn

from lm4ve.errors import UserError, listing
from lm4ve.necks.neck import LLMBlockNeck

_NORM = re.compile(r'norm|ln|bn', re.IGNORECASE)
_CLASS_TOKEN = re.compile('cls|class')
#: Names of the norm that comes after the mean over tokens.
_AFTER_MEAN = ('fc_norm', 'ln2')


def join(model: Any) -> None:
    """Let a host's neck start from the final norm of its encoder's weights.

    Args:
        model (nn.Module): A host's model with ``backbone`` and perhaps ``neck``.

    Raises:
        UserError: The neck reads a class token, and the encoder has none.
    """
    neck = _find_neck(model)[1]
    if neck is None:
        return
    if neck.reads_class_token:
        _check_class_token(model.backbone)
    if neck.norm is None:
        return
    # An encoder that was built with its norm may keep what was removed.
    removed = vars(model.backbone).get('removed_norm', {})
    if removed.keys() == neck.norm.state_dict().keys():
        neck.norm.load_state_dict(removed)
    for part in (model, model.backbone):
        part.register_load_state_dict_pre_hook(partial(_load_norm, model))


def _find_neck(model: nn.Module) -> tuple[str, Any]:
    """Return the name and the neck that a model has as ``neck``; '' and None without one."""
    for name, module in model.named_modules():
        if name.startswith('neck') and isinstance(module, LLMBlockNeck):
            return name, module
    return '', None


def _check_class_token(backbone: nn.Module) -> None:
    """Check that an encoder has a class token.

    Raises:
        UserError: No parameter is named so.
    """
    for name, _ in backbone.named_parameters():
        if _CLASS_TOKEN.search(name):
            return
    kind = type(backbone).__name__
    raise UserError(
        f'The neck reads a class token: {kind} has none. Fix: another out_type.'
    )


def _load_norm(
    model: Any, module: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any
) -> None:
    """Move a plain encoder's final norm to the neck: a hook before ``load_state_dict``.

    Args:
        model (nn.Module): The model, whose neck has a norm.
        module (nn.Module): What is loaded: the model, or its backbone.
        state (dict): The tensors that are loaded; changed in place.
        prefix (str): The module's name in the state, with a dot.
    """
    name, neck = _find_neck(model)
    own = f'{prefix}{name}.norm.'
    if f'{own}weight' in state:
        return
    loads_model = module is model
    if prefix and not loads_model:
        # The backbone is loaded as a part of the model, which has moved the norm.
        return
    backbone = f'{prefix}backbone.' if loads_model else prefix
    norm = neck.norm.state_dict()
    candidates = _find_norms(state, backbone, model.backbone, norm)
    chosen = _choose_norm(candidates, neck)
    if chosen is not None:
        for leaf, tensor in norm.items():
            loaded = state.pop(f'{chosen}.{leaf}')
            if loads_model:
                state[own + leaf] = loaded
            else:
                tensor.copy_(loaded)
    _log_loading(f'{name}.norm', chosen, module, state, prefix)


def _find_norms(
    state: Mapping[str, Tensor],
    prefix: str,
    backbone: nn.Module,
    norm: Mapping[str, Tensor],
) -> list[str]:
    """Return the names of norms in a state that the backbone lacks and the neck can load.

    Args:
        state (dict): The state.
        prefix (str): The backbone's name in it, with a dot.
        backbone (nn.Module): The backbone.
        norm (dict): The tensors of the neck's norm.
    """
    known = {prefix + key for key in backbone.state_dict()}
    names = []
    for key in state.keys() - known:
        if not key.startswith(prefix) or not key.endswith('.weight'):
            continue
        name = key.removesuffix('.weight')
        is_norm = _NORM.search(name.rpartition('.')[2])
        if is_norm and _fits(state, name, norm):
            names.append(name)
    return names


def _fits(state: Mapping[str, Tensor], name: str, norm: Mapping[str, Tensor]) -> bool:
    """Whether a state has a norm's tensors under a name, in the same shapes."""
    for leaf, tensor in norm.items():
        loaded = state.get(f'{name}.{leaf}')
        if getattr(loaded, 'shape', None) != tensor.shape:
            return False
    return True


def _choose_norm(candidates: list[str], neck: LLMBlockNeck) -> str | None:
    """Choose the norm that stands where the neck's does: after a mean over tokens, or not."""
    is_after_mean = neck.out_type == 'avg_featmap' and not neck.norm_first

    def rank(name: str) -> tuple[bool, str]:
        fits = name.endswith(_AFTER_MEAN) == is_after_mean
        return fits, name

    return max(candidates, key=rank, default=None)


def _log_loading(
    norm: str,
    chosen: str | None,
    module: nn.Module,
    state: Mapping[str, Tensor],
    prefix: str,
) -> None:
    """Log where a neck's norm comes from, and what else does not fit."""
    names = {prefix + key for key in module.state_dict()}
    missing = sorted(names - state.keys())
    unknown = sorted(state.keys() - names)
    start = chosen or 'its initial values'
    text = (
        f'{norm} starts from {start} of {len(state)} tensors. '
        f'Missing: {listing(missing)}. Unknown: {listing(unknown)}.'
    )
    level = logging.INFO if chosen else logging.WARNING
    print_log(text, logger='current', level=level)
