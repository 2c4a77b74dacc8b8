"""A host's neck beside its encoder: the class token that it reads, the norm that it takes over.

A plain encoder's checkpoint has a final norm, which the encoder before a neck lacks.
The neck's norm starts from it, by whatever way the weights are loaded: into the model
or into its backbone. The hosts' models are repaired to do so when they are built.
"""

import logging
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import wrapt
from mmengine.logging import print_log
from torch import Tensor, nn

from lm4ve.errors import UserError, listing
from lm4ve.necks.neck import LLMBlockNeck

_NORM = re.compile(r'norm|ln|bn', re.IGNORECASE)
_CLASS_TOKEN = re.compile('cls|class')
#: Names of the norm that comes after the mean over tokens.
_AFTER_MEAN = ('fc_norm', 'ln2')
_TABLE = 'docs/guides/backbones.md has the fields of each backbone'


def load_plain_encoders(host: Any) -> None:
    """A host drops the final norm of a plain encoder's checkpoint.

    True of mmpretrain 1.2.0 and mmaction2 1.2.0 (no upstream issue): the neck takes no
    part in its host's loading. May go once a host hands the tensors that its backbone
    lacks to its neck.
    """
    wrapt.wrap_function_wrapper(host, '__init__', _init)


def _init(init: Callable[..., None], model: Any, args: Any, kwargs: Any) -> None:
    """Build a host's model, and let its neck take over the final norm."""
    init(*args, **kwargs)
    join(model)


def join(model: Any) -> None:
    """Let the norm of a host's neck start from the final norm of its encoder.

    The encoder before a neck is built without that norm. Its values come from the
    encoder itself, if that was built with the norm and has kept what was removed; and
    from every checkpoint of a plain encoder that is loaded later, into the model or
    into its backbone alone. Nothing happens to a model without such a neck, or whose
    neck has no norm.

    Args:
        model (nn.Module): A host's model with ``backbone`` and perhaps ``neck``.

    Raises:
        UserError: The neck reads a class token, and the encoder has none.
    """
    _, neck = _find_neck(model)
    if neck is None:
        return
    if neck.reads_class_token:
        _check_class_token(model.backbone)
    _watch_scores(getattr(model, 'head', None))
    if neck.norm is None:
        return
    _copy_removed_norm(model.backbone, neck.norm)
    # Checkpoints are loaded into the whole model (load_from), or by the backbone itself
    # (init_cfg=dict(type='Pretrained')).
    load_norm = partial(_load_norm, model)
    model.register_load_state_dict_pre_hook(load_norm)
    model.backbone.register_load_state_dict_pre_hook(load_norm)


def _copy_removed_norm(backbone: nn.Module, norm: nn.Module) -> None:
    """Load the norm that was removed from an encoder into the neck's norm.

    Few encoders have kept one, in an attribute that is not part of the module
    (``lm4ve/tasks/image/models/backbones.py``). A norm of another class, which has
    other tensors, is left out: the neck's config decides about the class.
    """
    removed = vars(backbone).get('removed_norm', {})
    if removed.keys() == norm.state_dict().keys():
        norm.load_state_dict(removed)


def _find_neck(model: nn.Module) -> tuple[str, Any]:
    """Find the neck of a host's model: its attribute ``neck``, or a part of that.

    Returns:
        tuple[str, LLMBlockNeck | None]: The neck's name in the model, and the neck; ''
        and None if there is none.
    """
    for name, module in model.named_modules():
        if name.startswith('neck') and isinstance(module, LLMBlockNeck):
            return name, module
    return '', None


def _check_class_token(backbone: nn.Module) -> None:
    """Check that an encoder has a class token.

    Raises:
        UserError: No parameter has the name of one.
    """
    for name, _ in backbone.named_parameters():
        if _CLASS_TOKEN.search(name):
            return
    raise UserError(
        f'model.neck reads a class token, but {type(backbone).__name__} has none. Fix: '
        f"out_type='avg_featmap' ({_TABLE})."
    )


def _watch_scores(head: Any) -> None:
    """Let a head of mmpretrain that classifies refuse to score tokens instead of samples.

    Its losses of smoothed and mixed labels would go on with such scores where a batch
    has one sample, or as many as there are tokens: they broadcast. Any other mistake
    between neck and head is an error of torch's about shapes.
    """
    if any(base.__name__ == 'ClsHead' for base in type(head).__mro__):
        head.register_forward_hook(_refuse_scores_of_tokens)


def _refuse_scores_of_tokens(head: nn.Module, args: Any, scores: Any) -> None:
    """Check that a head's scores are ``[B, classes]``; torch calls it after the head.

    Raises:
        UserError: They are of another shape.
    """
    if not isinstance(scores, Tensor) or scores.dim() == 2:
        return
    raise UserError(
        f'{type(head).__name__} gives scores of shape {list(scores.shape)}, not [B, '
        "classes]. Fix: model.neck.out_type='avg_featmap' or 'cls_token' if the head "
        f"reads a vector for each sample, 'raw' if it reads tokens ({_TABLE})."
    )


def _load_norm(
    model: Any, module: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any
) -> None:
    """Move a plain encoder's final norm to the neck, before ``load_state_dict`` acts.

    torch calls it for each of the two modules that have it as a hook.

    Args:
        model (nn.Module): The model, whose neck has a norm.
        module (nn.Module): The module that is loaded: the model, or its backbone.
        state (dict): The tensors that are loaded; changed in place.
        prefix (str): The module's name in the state with a dot, '' if it is loaded by
            itself.
    """
    neck_name, neck = _find_neck(model)
    norm_prefix = f'{prefix}{neck_name}.norm.'
    if f'{norm_prefix}weight' in state:
        return  # a checkpoint of a model with a neck
    loads_model = module is model
    if prefix and not loads_model:
        # The backbone is loaded as a part of the model, which has moved the norm.
        return
    backbone_prefix = prefix
    if loads_model:
        backbone_prefix = f'{prefix}backbone.'
    norm = neck.norm.state_dict()
    candidates = _find_norms(state, backbone_prefix, model.backbone, norm)
    chosen = _choose_norm(candidates, neck)
    if chosen is not None:
        for name, tensor in norm.items():
            loaded = state.pop(f'{chosen}.{name}')
            if loads_model:
                state[norm_prefix + name] = loaded
            else:  # the neck's norm is not among what is loaded
                tensor.copy_(loaded)
    _log_loading(f'{neck_name}.norm', chosen, module, state, prefix)


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
    """Return whether a state has a norm called ``name`` with the tensors of ``norm``.

    Their names and shapes are compared.
    """
    for tensor_name, tensor in norm.items():
        loaded = state.get(f'{name}.{tensor_name}')
        if getattr(loaded, 'shape', None) != tensor.shape:
            return False
    return True


def _choose_norm(candidates: list[str], neck: LLMBlockNeck) -> str | None:
    """Choose the norm of a checkpoint that the neck's norm starts from.

    Hosts call a norm after the mean over tokens by other names than one before it. One
    is chosen that acts where the neck's acts, and of several the last by name.

    Args:
        candidates (list[str]): Names of norms.
        neck (LLMBlockNeck): The neck.

    Returns:
        str | None: The name; None if there are no candidates.
    """
    is_after_mean = neck.out_type == 'avg_featmap' and not neck.norm_first

    def rank(name: str) -> tuple[bool, str]:
        acts_there = name.endswith(_AFTER_MEAN) == is_after_mean
        return acts_there, name

    return max(candidates, key=rank, default=None)


def _log_loading(
    norm: str,
    chosen: str | None,
    module: nn.Module,
    state: Mapping[str, Tensor],
    prefix: str,
) -> None:
    """Log which values a neck's norm starts from, and which tensors have no counterpart.

    It is a warning if no norm was found in what is loaded.

    Args:
        norm (str): The norm's name in the model.
        chosen (str, optional): The name that its values had in what is loaded; None: it
            keeps its initial values.
        module (nn.Module): The module that is loaded.
        state (Mapping): The tensors that are loaded.
        prefix (str): The module's name in them, with a dot.
    """
    start = 'its initial values, since the checkpoint has no such norm'
    level = logging.WARNING
    if chosen is not None:
        start = f"the checkpoint's {chosen}"
        level = logging.INFO
    names = {prefix + key for key in module.state_dict()}
    missing = sorted(names - state.keys())
    unknown = sorted(state.keys() - names)
    text = (
        f'{norm} starts from {start}. Of {len(state)} tensors that are loaded, missing: '
        f'{listing(missing) or "none"}. Unknown: {listing(unknown) or "none"}.'
    )
    print_log(text, logger='current', level=level)
