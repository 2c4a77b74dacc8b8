"""Load an encoder's weights so that no feature depends on a number that no file holds.

A file may lack what comes after the features, as the pooler of a classifier, and a
classifier may have been trained on other classes. Everything else has to be there.
"""

import inspect
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lm4ve.errors import CheckpointError, listing
from lm4ve.runner.checkpoint_files import load_strictly

#: First parts of the names of what follows the features: classifiers and poolers.
AFTER_FEATURES = ('classifier', 'fc', 'head', 'head_dist', 'heads', 'pooler')


def load_encoder_state(
    model: nn.Module, state: Mapping[str, Tensor], origin: str
) -> None:
    """Load a state into an encoder whose classifier may be missing or of other classes.

    Args:
        model (nn.Module): The encoder.
        state (Mapping[str, Tensor]): Tensors by the model's names.
        origin (str): Where the state comes from, for errors.

    Raises:
        CheckpointError: Tensors are unknown, or missing or of another shape before the
            classifier; the message names them.
    """
    # The model's own tensors, of which those that fit are replaced.
    merged = model.state_dict()
    refuse_unknown_tensors([name for name in state if name not in merged], origin)
    lacking = []
    for name, own in merged.items():
        if name not in state:
            lacking.append(name)
        elif state[name].shape == own.shape:
            merged[name] = state[name]
        else:
            lacking.append(
                f'{name} {list(state[name].shape)}, expected {list(own.shape)}'
            )
    load_strictly(model, merged, origin)
    require_after_features(model, lacking, origin)


def load_pretrained(
    model_class: type[Any], config: Any, state: Mapping[str, Tensor], origin: str
) -> tuple[nn.Module, list[str]]:
    """Build a model of ``transformers`` with the weights of its own or of a larger one.

    The library renames the tensors of older releases. Tensors that only a larger model
    has, as a classifier, are accepted where ``architectures`` of the configuration
    names that model.

    Args:
        model_class (type): The model's class.
        config (PretrainedConfig): Its configuration.
        state (Mapping[str, Tensor]): All tensors of the files.
        origin (str): Where they come from, for errors.

    Returns:
        tuple[nn.Module, list[str]]: The model in fp32, and the names of the tensors
        that the state lacks or has in another shape; these have random values.

    Raises:
        CheckpointError: Tensors are unknown; the message names them.
    """
    model, loading_info = _from_state(model_class, config, state)
    unknown = set(loading_info['unexpected_keys'])
    for larger in _architectures(config):
        if not unknown:
            break
        if larger is model_class:
            continue
        _, info_of_larger = _from_state(larger, config, state)
        unknown &= set(info_of_larger['unexpected_keys'])
    refuse_unknown_tensors(sorted(unknown), origin)
    lacking = sorted(loading_info['missing_keys'])
    for name, stored, expected in sorted(loading_info['mismatched_keys']):
        lacking.append(f'{name} {list(stored)}, expected {list(expected)}')
    return model, lacking


def _from_state(
    model_class: type[Any], config: Any, state: Mapping[str, Tensor]
) -> tuple[nn.Module, dict[str, Any]]:
    """Build a model of ``transformers`` with a state, in fp32.

    Returns:
        tuple[nn.Module, dict[str, Any]]: The model, and the library's loading info: the
        names of missing, unexpected and mismatched tensors.
    """
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    has_bar = logging.is_progress_bar_enabled()
    # The library would print the names, which our errors hold.
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        model, loading_info = model_class.from_pretrained(
            None,
            config=config,
            state_dict=dict(state),
            dtype=torch.float32,
            ignore_mismatched_sizes=True,  # they are among the names
            output_loading_info=True,
        )
    finally:
        logging.set_verbosity(verbosity)
        if has_bar:
            logging.enable_progress_bar()
    return model, loading_info


def _architectures(config: Any) -> Iterable[type[Any]]:
    """Yield the model classes of ``transformers`` that a configuration's ``architectures`` name.

    Classes that the library lacks, and those of another type of configuration, are left
    out.
    """
    import transformers

    if not config.architectures:
        return
    for name in config.architectures:
        model_class: Any = getattr(transformers, str(name), None)
        if not inspect.isclass(model_class):
            continue
        if not issubclass(model_class, transformers.PreTrainedModel):
            continue
        if model_class.config_class is type(config):
            yield model_class


def refuse_unknown_tensors(names: Collection[str], origin: str) -> None:
    """Raise an error if there are tensors that the encoder does not have.

    Args:
        names (Collection[str]): The names of these tensors; none is no error.
        origin (str): Where they come from, for the error.

    Raises:
        CheckpointError: The message names the first ones.
    """
    if names:
        raise CheckpointError(
            f'{origin} has {len(names)} tensor(s) that the encoder does not have: '
            f'{listing(list(names), 3)}. Fix: take configuration and weights from one release.'
        )


@torch.no_grad()
def require_after_features(
    model: nn.Module, lacking: Collection[str], origin: str
) -> None:
    """Refuse a file that lacks tensors, unless they belong to what follows the features.

    These are set to zero: random values would give the encoder another fingerprint each
    time.

    Args:
        model (nn.Module): The encoder.
        lacking (Collection[str]): The names of the tensors that the file lacks, each
            perhaps followed by a blank and a remark.
        origin (str): Where the other tensors come from, for the error.

    Raises:
        CheckpointError: The message names the first tensors.
    """
    tensors = model.state_dict()  # shares memory with the model
    needed = []
    for described in lacking:
        name, _, _ = described.partition(' ')
        first, _, _ = name.partition('.')
        if first in AFTER_FEATURES:
            tensors[name].zero_()
        else:
            needed.append(described)
    if needed:
        raise CheckpointError(
            f'{origin} lacks {len(needed)} tensor(s) of the encoder: '
            f'{listing(needed, 3)}. Fix: take configuration and weights from one release.'
        )
