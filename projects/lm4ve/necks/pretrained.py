"""Folders of trained parts: written by ``save_pretrained``, read by ``from_pretrained``.

As in PEFT, a folder holds what was trained and records what it was trained around:
neither the language model nor the frozen rest of the encoder is in it. A folder that
was made around other weights is refused before anything of the model is changed.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import get_rank
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from lm4ve.errors import CheckpointError, UserError, listing, require
from lm4ve.files import write_atomically, write_json
from lm4ve.llm.fingerprint import fingerprint
from lm4ve.llm.finite import check_finite
from lm4ve.necks.neck import LLMBlockNeck
from lm4ve.necks.places import find_places, has_one_place
from lm4ve.necks.wrapping import build_necks, insert
from lm4ve.version import __version__

WEIGHTS_FILE = 'lm4ve_model.safetensors'
CONFIG_FILE = 'lm4ve_config.json'
FORMAT = 1
#: The arguments of :func:`lm4ve.wrap` that a folder has, beside the block.
_ARGUMENTS = ('after', 'index', 'before', 'share_block', 'neck', 'mask')
#: Name of the neck in the model that has it.
_NECK = 'llm_neck.'


def save_pretrained(model: nn.Module, folder: str | Path) -> None:
    """Write what was trained of a wrapped model.

    That is the neck, every parameter with ``requires_grad`` and every buffer, as
    safetensors, beside a JSON file with the place, the settings and the block's record.
    Frozen parameters of the encoder are not written but fingerprinted. Where FSDP2 has
    split the model, every process has to call this function, and the one of rank 0
    writes.

    Args:
        model (nn.Module): The result of :func:`wrap`; also within
            DistributedDataParallel, ``torch.compile`` or ``peft``.
        folder (str | Path): It is made if it is not there.

    Raises:
        UserError: The model was not wrapped, or the folder cannot be written.
    """
    wrapped: Any = _unwrapped(model)
    if not hasattr(wrapped, 'llm_inserted'):
        raise UserError(
            f'{type(wrapped).__name__} has no block of lm4ve.wrap. Fix: wrap it first.'
        )
    state = _tensors_of(wrapped)
    frozen = _frozen_names(wrapped)
    first_neck = wrapped.llm_neck
    if isinstance(first_neck, nn.ModuleList):
        first_neck = first_neck[0]
    frozen_fingerprint = None
    if frozen:
        frozen_fingerprint = _fingerprint(state, frozen)
    config = dict(
        format=FORMAT,
        lm4ve=__version__,
        model=_class_name(wrapped),
        **wrapped.llm_inserted,
        record=getattr(first_neck.block, 'source', None),
        frozen_encoder=frozen_fingerprint,
    )
    kept = {}
    for name, tensor in state.items():
        if name not in frozen:
            kept[name] = _gather(tensor).to('cpu', copy=True).contiguous()
    is_split = any(isinstance(tensor, DTensor) for tensor in state.values())
    if is_split and get_rank() != 0:
        return
    write_atomically(save(kept), Path(folder) / WEIGHTS_FILE)
    write_json(config, Path(folder) / CONFIG_FILE)


def from_pretrained(
    model: nn.Module,
    folder: str | Path,
    block: str | Mapping[str, Any] | nn.Module | None = None,
) -> nn.Module:
    """Put the block and what was trained around it into a model, without executing code.

    Args:
        model (nn.Module): The encoder that was wrapped, made anew: with the same frozen
            weights, if some were frozen. It may be wrapped already.
        folder (str | Path): A folder of :func:`save_pretrained`.
        block (str | dict | nn.Module, optional): As for :func:`wrap`: where the
            language model lies now, which still has to be the same one.

    Returns:
        nn.Module: ``model``, changed in place, in the mode that it was in.

    Raises:
        CheckpointError: The folder is of another format, or was made with another
            language model, other settings, another encoder or other frozen weights of
            it. The model is as it was then.
    """
    model = _unwrapped(model)
    folder = Path(folder)
    config = json.loads((folder / CONFIG_FILE).read_text(encoding='utf-8'))
    require(
        config['format'] == FORMAT,
        f"'{folder}' has format {config['format']}, and this version of lm4ve reads "
        f'format {FORMAT}. Fix: a newer lm4ve.',
    )
    saved = load_file(folder / WEIGHTS_FILE)
    check_finite(saved, f"'{folder / WEIGHTS_FILE}'", dict(model.named_buffers()))
    _check_encoder(model, saved, config)
    if hasattr(model, 'llm_inserted'):
        _check_arguments(model, config, folder)
        inserted: Any = model.llm_neck
        _load_neck(inserted, saved)
    else:
        arguments = {name: config[name] for name in _ARGUMENTS if name in config}
        necks = _build_necks(model, arguments, block, config['block'], folder)
        built: nn.Module = nn.ModuleList(necks)
        if has_one_place(config['after'], config.get('before')):
            built = necks[0]
        _load_neck(built, saved)
        insert(model, necks, arguments)
    model.load_state_dict(saved, strict=False)
    return model


def _build_necks(
    model: nn.Module,
    arguments: dict[str, Any],
    block: str | Mapping[str, Any] | nn.Module | None,
    saved_block: Any,
    folder: Path,
) -> Sequence[LLMBlockNeck]:
    """Build the necks that a folder describes.

    Args:
        model (nn.Module): The encoder; it stays as it is.
        arguments (dict): See :func:`lm4ve.necks.wrapping.build_necks`.
        block: See :func:`from_pretrained`.
        saved_block (dict, optional): The block's config in the folder; None if it was
            given as a module.
        folder (Path): The folder, for messages.

    Raises:
        UserError: The block is unknown, or a place has an adapter.
    """
    if block is None:
        block = saved_block
    if block is None:
        raise UserError(
            f"The block of '{folder}' was given as a module. Fix: give block=."
        )
    for place in find_places(model, arguments['after'], arguments.get('before')):
        if hasattr(place.module, 'base_layer'):  # of peft
            raise UserError(
                f"'{place.name}' has an adapter, which may come before or after the "
                'block. Fix: lm4ve.wrap before or after get_peft_model, as it was, '
                'then from_pretrained.'
            )
    return build_necks(model, arguments, block)


def _check_arguments(model: Any, config: Mapping[str, Any], folder: Path) -> None:
    """Check that a model was wrapped as the one of a folder.

    Raises:
        UserError: It was wrapped with other arguments.
    """
    for name in ('after', 'index', 'before', 'share_block', 'mask'):
        value = model.llm_inserted.get(name)
        if isinstance(value, tuple):  # which JSON has not
            value = list(value)
        require(
            value == config.get(name),
            f'{name}={value!r} of lm4ve.wrap differs from {config.get(name)!r} of '
            f"'{folder}'. Fix: the same, or a model that is not wrapped.",
        )


def _load_neck(neck: nn.Module, saved: Mapping[str, Tensor]) -> None:
    """Load a neck, or leave it as it was.

    The records are compared here, before anything else of the model has changed.

    Args:
        neck (nn.Module): The neck, or a list of necks.
        saved (Mapping): The tensors of a folder.

    Raises:
        CheckpointError: They are of another neck or block.
    """
    trained = {}
    for name, tensor in saved.items():
        if name.startswith(_NECK):
            trained[name.removeprefix(_NECK)] = tensor
    own = neck.state_dict()
    wrong = _differences(trained, own)
    if not wrong:
        wrong = sorted(own.keys() - trained.keys())
    if wrong:
        raise CheckpointError(
            'The folder was made with another neck or block: '
            f'{listing(wrong, 3)}. Fix: give block= the one that {CONFIG_FILE} names.'
        )
    before = {name: tensor.clone() for name, tensor in own.items()}
    try:
        neck.load_state_dict(trained)
    except UserError:
        # What was loaded before the record that differs.
        neck.load_state_dict(before)
        raise


def _unwrapped(model: Any) -> Any:
    """Return the model inside all wrappers around it, which may come in any order.

    ``torch.compile`` and ``peft`` are recognized by an attribute: the class of the first
    is private, and the second may not be installed.
    """
    while True:
        if hasattr(model, '_orig_mod'):  # of torch.compile
            model = model._orig_mod
        elif isinstance(model, nn.parallel.DistributedDataParallel):
            model = model.module
        elif hasattr(model, 'get_base_model'):  # of peft
            model = model.get_base_model()
        else:
            return model


def _class_name(model: nn.Module) -> str:
    """Return the name of a model's class, not of the one that FSDP2 derives from it."""
    for cls in type(model).__mro__:
        if not issubclass(cls, FSDPModule):
            return cls.__name__
    raise AssertionError  # the last one is object


def _tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of a model's state, without foreign records."""
    state = model.state_dict()
    return {name: v for name, v in state.items() if isinstance(v, Tensor)}


def _frozen_names(model: nn.Module) -> set[str]:
    """Return the names of the encoder's frozen parameters."""
    names = set()
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if not parameter.requires_grad and not name.startswith(_NECK):
            names.add(name)
    return names


def _gather(tensor: Tensor) -> Tensor:
    """Return all values of a tensor, detached, also if FSDP2 has split it over processes.

    Of a split tensor it gathers the parts of all processes, so every process has to
    call it.
    """
    gathered: Tensor = tensor.detach()
    if isinstance(gathered, DTensor):
        gathered = gathered.full_tensor()
    return gathered


def _fingerprint(state: Mapping[str, Tensor], names: Iterable[str]) -> str:
    """Return the fingerprint of some tensors of a state, in the order of their names."""
    return fingerprint((name, _gather(state[name]).cpu()) for name in sorted(names))


def _check_encoder(
    model: nn.Module, saved: Mapping[str, Tensor], config: Mapping[str, Any]
) -> None:
    """Compare an encoder with the one that a folder was made with.

    Args:
        model (nn.Module): The encoder.
        saved (Mapping): The tensors of the folder.
        config (Mapping): The JSON file of the folder.

    Raises:
        CheckpointError: Its tensors have other names or shapes, or what is frozen of it
            has other values.
    """
    own = _without_neck(_tensors_of(model))
    trained = _without_neck(saved)
    rest = [name for name in own if name not in trained]
    frozen = config['frozen_encoder']
    wrong = _differences(trained, own)
    if not wrong:
        if frozen is None:
            wrong = rest
        elif _fingerprint(own, rest) != frozen:
            names = listing(rest, 2)
            wrong = [f'the frozen weights of {names}, which must be there before']
    if wrong:
        raise CheckpointError(
            f'The folder was made with another model ({config["model"]}) than this '
            f'{type(model).__name__}: they differ in {listing(wrong, 3)}.'
        )


def _without_neck(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a wrapped model's state that are the encoder's."""
    return {name: v for name, v in state.items() if not name.startswith(_NECK)}


def _differences(saved: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    """Describe the tensors that a model lacks or has in another shape.

    Args:
        saved (Mapping): What would be loaded. Records (uint8) vary in length.
        own (Mapping): The model's tensors.
    """
    differences = []
    for name, tensor in saved.items():
        there: object = 'none'
        if name in own:
            is_record = tensor.dtype == torch.uint8
            if is_record or tensor.shape == own[name].shape:
                continue
            there = list(own[name].shape)
        differences.append(f'{name} {list(tensor.shape)} instead of {there}')
    return differences
