"""What an encoder's library says of it: settings that no weight shows.

Two ViTs of other heads, another activation or another epsilon have weights of the same
names and shapes. Models of ``transformers`` keep such settings in ``config``; models of
timm keep the name of their architecture, and what their pixels are, in
``pretrained_cfg``. A module of torch keeps neither.
"""

import json
from collections.abc import Mapping
from typing import Any

from torch import nn

from lm4ve.blocks.record import agree
from lm4ve.errors import CheckpointError, brief

#: Fields of a config of ``transformers`` that change no output in evaluation: where it
#: comes from, in which type and how it runs, what its labels are called, and what is
#: returned beside.
_WITHOUT_EFFECT = {
    'name_or_path',
    'transformers_version',
    'dtype',
    'torch_dtype',
    'architectures',
    'auto_map',
    'finetuning_task',
    'gradient_checkpointing',
    'id2label',
    'label2id',
    'output_attentions',
    'output_hidden_states',
    'problem_type',
    'return_dict',
    'task_specific_params',
    'tokenizer_class',
    'torchscript',
    'use_cache',
}
#: Parts of the names of fields that act in training alone, or on how a model runs.
_TRAINING = ('drop', 'initializer', '_implementation', 'quantization')
#: Fields of timm's ``pretrained_cfg`` that are of the model, not of its weights' file.
_OF_TIMM = ('architecture', 'mean', 'std')


def settings_of(model: nn.Module) -> dict[str, Any]:
    """Return the settings of an encoder, by the name of the module that has them.

    Args:
        model (nn.Module): The encoder, or a module with encoders in it. Of a module with
            settings the modules within are not asked.

    Returns:
        dict[str, dict]: Plain data; empty for a module of torch.
    """
    settings: dict[str, Any] = {}
    for name, module in model.named_modules():
        is_within = any(_is_within(name, outer) for outer in settings)
        if is_within or _is_within(name, 'llm_neck'):
            continue
        own = _own_settings(module)
        if own:
            settings[name] = own
    return settings


def check_settings(model: nn.Module, saved: Mapping[str, Any]) -> None:
    """Compare the settings of an encoder with those of the one that was saved.

    A field that only one of them has is not compared: libraries add fields.

    Args:
        model (nn.Module): The encoder.
        saved (Mapping): Its :func:`settings_of` when it was saved.

    Raises:
        CheckpointError: A field differs. It names both values.
    """
    own = settings_of(model)
    for name, theirs in saved.items():
        mine = own.get(name)
        if not isinstance(theirs, Mapping) or mine is None:
            continue
        for field, value in theirs.items():
            if field in mine and not agree(value, mine[field]):
                place = f'{name}.{field}'.removeprefix('.')
                raise CheckpointError(
                    f'The folder was made with an encoder of {place}='
                    f'{brief(repr(value))}, this one has {brief(repr(mine[field]))}. '
                    'Fix: make the encoder with the same settings.'
                )


def _is_within(name: str, outer: str) -> bool:
    """Return whether a module lies within another one, or is it, by their names."""
    return outer == '' or f'{name}.'.startswith(f'{outer}.')


def _own_settings(module: Any) -> dict[str, Any]:
    """Return the settings that a module keeps itself; empty if it keeps none."""
    config: Any = getattr(module, 'config', None)
    if hasattr(config, 'to_dict'):
        return _acting(_plain(config.to_dict()))
    card = getattr(module, 'pretrained_cfg', None)
    if isinstance(card, Mapping):
        plain = _plain(dict(card))
        return {field: plain[field] for field in _OF_TIMM if field in plain}
    return {}


def _plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields as JSON gives them back."""
    plain: dict[str, Any] = json.loads(json.dumps(fields, default=str))
    return plain


def _acting(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a config, and of those in it, that act in evaluation."""
    acting = {}
    for name, value in fields.items():
        acts_in_training = any(part in name for part in _TRAINING)
        is_private = name.startswith('_')
        if name in _WITHOUT_EFFECT or acts_in_training or is_private:
            continue
        acting[name] = _acting(value) if isinstance(value, Mapping) else value
    return acting
