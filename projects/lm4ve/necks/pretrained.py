"""Folders of trained parts: written by ``save_pretrained``, read by ``from_pretrained``.

As in PEFT, a folder holds what was trained and records what it was trained around:
neither the language model nor the frozen rest of the encoder is in it. A folder that
was made around other weights is refused before anything of the model is changed.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import get_rank
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from lm4ve.blocks.old_records import upgrade_neck
from lm4ve.errors import CheckpointError, UserError, listing, require
from lm4ve.files import write_atomically, write_json
from lm4ve.llm.fingerprint import fingerprint
from lm4ve.llm.finite import check_finite
from lm4ve.necks.encoder_example import Example
from lm4ve.necks.folder_config import (
    CONFIG_FILE,
    FORMAT,
    FolderConfig,
    describe_arguments,
    parse_config,
    read_config,
)
from lm4ve.necks.host_settings import check_settings, settings_of
from lm4ve.necks.neck import LLMBlockNeck
from lm4ve.necks.places import Place, find_places, has_one_place
from lm4ve.necks.saved_block import SavedLanguageModel, block_of
from lm4ve.necks.wrapping import block_config, build_necks_at, insert
from lm4ve.version import __version__

WEIGHTS_FILE = 'lm4ve_model.safetensors'
#: Name of the neck in the model that has it.
_NECK = 'llm_neck.'


def save_pretrained(model: nn.Module, folder: str | Path, example: Any = None) -> None:
    """Write what was trained of a wrapped model.

    That is the neck, every parameter with ``requires_grad`` and every buffer, as
    safetensors, beside a JSON file with the place, the settings and the block's record.
    Frozen parameters of the encoder are not written but fingerprinted. Where FSDP2 has
    split the model, every process has to call this function, and the one of rank 0
    writes.

    What no weight shows of the encoder (heads, activation, epsilon) is written as its
    library says it: the ``config`` of a model of ``transformers``, the architecture in
    ``pretrained_cfg`` of a timm model. A module of torch says nothing, and timm's card
    nothing of arguments that were overridden: only ``example`` shows these.

    Args:
        model (nn.Module): The result of :func:`wrap`; also within
            DistributedDataParallel, ``torch.compile`` or ``peft``.
        folder (str | Path): It is made if it is not there.
        example (Tensor | Sequence | Mapping, optional): An input of the model, as its
            ``forward`` takes it: a tensor, or a tuple or dict of tensors. It is written
            with the encoder's output for it, without the block, in evaluation and in
            fp32 on the CPU, and :func:`from_pretrained` compares. A copy of the encoder
            computes it, so the model stays as it is. Both together have at most 1 MiB:
            one picture of 224 x 224 pixels has 600 kB, half of that in float16.

    Raises:
        UserError: The model was not wrapped, the folder cannot be written, or the
            encoder does not run on ``example``.
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
        **describe_arguments(wrapped.llm_inserted, Path(folder)),
        record=getattr(first_neck.block, 'source', None),
        frozen_encoder=frozen_fingerprint,
        host=settings_of(wrapped),
    )
    parse_config(config)  # what cannot be read is not written
    kept = {}
    if example is not None:
        kept.update(Example.of(wrapped, example).tensors())
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
    download: bool = False,
) -> nn.Module:
    """Put the block and what was trained around it into a model, without executing code.

    The folder may be a stranger's. It names a block of lm4ve and its settings; nothing
    that it names is imported or built. The language model is read from the folder, or
    from where it was, if it is on this machine and has the recorded fingerprint.

    Args:
        model (nn.Module): The encoder that was wrapped, made anew: with the same frozen
            weights, if some were frozen. It may be wrapped already.
        folder (str | Path): A folder of :func:`save_pretrained`.
        block (str | dict | nn.Module, optional): As for :func:`wrap`: where the
            language model lies now, which still has to be the same one. A block of your
            own has to be given.
        download (bool): Let the language model be downloaded if the folder names a hub
            id.

    Returns:
        nn.Module: ``model``, changed in place, in the mode that it was in.

    Raises:
        CheckpointError: The folder is of another format, or was made with another
            language model, other settings, another encoder or other frozen weights of
            it. The model is as it was then.
        UserError: The folder cannot name the block, or its language model is not on
            this machine.
    """
    model = _unwrapped(model)
    folder = Path(folder)
    config = read_config(folder)
    saved = _read_weights(folder)
    example = Example.take(saved)
    check_finite(saved, f"'{folder / WEIGHTS_FILE}'", dict(model.named_buffers()))
    _check_encoder(model, saved, config)
    check_settings(model, config.host)
    if example is not None:
        example.check(model, _without_neck(saved))
    if hasattr(model, 'llm_inserted'):
        _check_arguments(model, config.arguments, folder)
        inserted: Any = model.llm_neck
        _load_neck(inserted, saved)
    else:
        places = _find_places(model, config.arguments)
        necks, arguments = _build_necks(model, places, config, block, folder, download)
        built: nn.Module = nn.ModuleList(necks)
        if has_one_place(arguments['after'], arguments.get('before')):
            built = necks[0]
        _load_neck(built, saved)
        insert(model, places, necks, arguments)
    model.load_state_dict(saved, strict=False)
    return model


def _read_weights(folder: Path) -> dict[str, Tensor]:
    """Read the tensors of a folder.

    Raises:
        CheckpointError: The file is missing or damaged.
    """
    path = folder / WEIGHTS_FILE
    # Not a pipe or a device, which would have no end.
    if not path.is_file():
        raise CheckpointError(f"'{path}' is missing. Fix: copy the whole folder.")
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError, ValueError) as e:
        raise CheckpointError(f"'{path}' is damaged: {e}. Fix: copy it again.") from e
    return tensors


def _find_places(model: nn.Module, arguments: Mapping[str, Any]) -> list[Place]:
    """Find the places that a folder names.

    Raises:
        UserError: There is none, or one has an adapter.
    """
    places = find_places(model, arguments['after'], arguments.get('before'))
    for place in places:
        if hasattr(place.module, 'base_layer'):  # of peft
            raise UserError(
                f"'{place.name}' has an adapter, which may come before or after the "
                'block. Fix: lm4ve.wrap before or after get_peft_model, as it was, '
                'then from_pretrained.'
            )
    return places


def _build_necks(
    model: nn.Module,
    places: Sequence[Place],
    config: FolderConfig,
    block: str | Mapping[str, Any] | nn.Module | None,
    folder: Path,
    download: bool,
) -> tuple[Sequence[LLMBlockNeck], dict[str, Any]]:
    """Build the necks that a folder describes.

    Args:
        model (nn.Module): The encoder; it stays as it is.
        places (Sequence[Place]): Its places.
        config (FolderConfig): What the folder says.
        block, folder, download: See :func:`from_pretrained`.

    Returns:
        tuple: The necks, and the arguments of :func:`lm4ve.necks.wrapping.insert`.

    Raises:
        UserError: The block is unknown.
    """
    arguments = dict(config.arguments)
    if block is None:
        named = block_of(config, folder)
        language_model = SavedLanguageModel(named, config.fingerprint, folder, download)
        arguments['block'] = language_model.fields()
        block = language_model.build_block()
    else:
        arguments['block'] = block_config(block)
        block = arguments['block'] or block
    return build_necks_at(model, places, arguments, block), arguments


def _check_arguments(model: Any, arguments: Mapping[str, Any], folder: Path) -> None:
    """Check that a model was wrapped as the one of a folder.

    Args:
        model (nn.Module): The model.
        arguments (Mapping): The arguments in the folder.
        folder (Path): The folder, for the message.

    Raises:
        UserError: It was wrapped with other arguments.
    """
    for name in ('after', 'index', 'before', 'share_block', 'mask'):
        value = model.llm_inserted.get(name)
        if isinstance(value, tuple):  # which JSON has not
            value = list(value)
        require(
            value == arguments.get(name),
            f'{name}={value!r} of lm4ve.wrap differs from {arguments.get(name)!r} of '
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
    for name, module in neck.named_modules():
        if isinstance(module, LLMBlockNeck):
            upgrade_neck(trained, f'{name}.' if name else '')
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
    model: nn.Module, saved: Mapping[str, Tensor], config: FolderConfig
) -> None:
    """Compare an encoder with the one that a folder was made with.

    Args:
        model (nn.Module): The encoder.
        saved (Mapping): The tensors of the folder.
        config (FolderConfig): What the folder says.

    Raises:
        CheckpointError: Its tensors have other names or shapes, or what is frozen of it
            has other values.
    """
    own = _without_neck(_tensors_of(model))
    trained = _without_neck(saved)
    rest = [name for name in own if name not in trained]
    frozen = config.frozen_encoder
    wrong = _differences(trained, own)
    if not wrong:
        if frozen is None:
            wrong = rest
        elif _fingerprint(own, rest) != frozen:
            names = listing(rest, 2)
            wrong = [f'the frozen weights of {names}, which must be there before']
    if wrong:
        raise CheckpointError(
            f'The folder was made with another model ({config.model}) than this '
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
