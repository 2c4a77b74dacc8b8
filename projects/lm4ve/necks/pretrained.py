"""Folders of trained parts: written by ``save_pretrained``, read by ``from_pretrained``.

As in PEFT, a folder holds what was trained and records what it was trained around:
neither the language model nor the frozen rest of the encoder is in it. A folder that
was made around other weights is refused before anything of the model is changed.
"""

import json
from collections.abc import Iterable, Mapping
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
from lm4ve.necks.llm_block_insert import find_places, has_one_place
from lm4ve.necks.wrapping import build_necks, insert
from lm4ve.version import __version__

WEIGHTS_FILE = 'lm4ve_model.safetensors'
CONFIG_FILE = 'lm4ve_config.json'
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
    frozen = {
        n
        for n, p in wrapped.named_parameters(remove_duplicate=False)
        if not p.requires_grad and not n.startswith(_NECK)
    }
    state = {k: v for k, v in wrapped.state_dict().items() if isinstance(v, Tensor)}
    kept = {
        k: _whole(v).to('cpu', copy=True).contiguous()
        for k, v in state.items()
        if k not in frozen
    }
    necks = wrapped.llm_neck
    first = necks[0] if isinstance(necks, nn.ModuleList) else necks
    config = dict(
        format=1,
        lm4ve=__version__,
        model=_class_name(wrapped),
        **wrapped.llm_inserted,
        record=getattr(first.block, 'source', None),
        frozen_encoder=_fingerprint(state, frozen) if frozen else None,
    )
    is_split = any(isinstance(v, DTensor) for v in state.values())
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
    model, folder = _unwrapped(model), Path(folder)
    config = json.loads((folder / CONFIG_FILE).read_text(encoding='utf-8'))
    require(
        config['format'] == 1,
        f"'{folder}' has format {config['format']}, and this version of lm4ve reads format 1. Fix: "
        'a newer lm4ve.',
    )
    saved = load_file(folder / WEIGHTS_FILE)
    check_finite(saved, f"'{folder / WEIGHTS_FILE}'", dict(model.named_buffers()))
    _check_encoder(model, saved, config)
    made: Any = getattr(model, 'llm_inserted', None)
    neck: Any
    if made is not None:
        neck = model.llm_neck
        for name in ('after', 'index', 'before', 'share_block', 'mask'):
            value = made.get(name)
            value = (
                [*value] if isinstance(value, tuple) else value
            )  # JSON has no tuples
            require(
                value == config.get(name),
                f"{name}={value!r} of lm4ve.wrap differs from {config.get(name)!r} of '{folder}'. "
                'Fix: the same, or a model that is not wrapped.',
            )
    else:
        block = config['block'] if block is None else block
        if block is None:
            raise UserError(
                f"The block of '{folder}' was given as a module. Fix: give block=."
            )
        names = ('after', 'index', 'before', 'share_block', 'neck', 'mask')
        arguments = {name: config[name] for name in names if name in config}
        for place, name, _ in find_places(model, config['after'], config.get('before')):
            if hasattr(place, 'base_layer'):  # of peft
                raise UserError(
                    f"'{name}' has an adapter, which may come before or after the block. Fix: "
                    'lm4ve.wrap before or after get_peft_model, as it was, then from_pretrained.'
                )
        necks = build_necks(model, arguments, block)
        single = has_one_place(config['after'], config.get('before'))
        neck = necks[0] if single else nn.ModuleList(necks)
    trained = {
        k.removeprefix(_NECK): v for k, v in saved.items() if k.startswith(_NECK)
    }
    mine = neck.state_dict()
    if wrong := _differences(trained, mine) or sorted(mine.keys() - trained.keys()):
        raise CheckpointError(
            f'The folder was made with another neck or block: {listing(wrong, 3)}. Fix: give '
            f'block= the one that {CONFIG_FILE} names.'
        )
    # The records are compared here, before anything else of the model has changed.
    kept = {k: v.clone() for k, v in mine.items()}
    try:
        neck.load_state_dict(trained)
    except UserError:  # what was loaded before the record that differs
        neck.load_state_dict(kept)
        raise
    if made is None:
        insert(model, necks, arguments)
    model.load_state_dict(saved, strict=False)
    return model


def _unwrapped(model: Any) -> Any:
    """Return the model within DistributedDataParallel, ``torch.compile`` and ``peft``."""
    while True:
        if hasattr(model, '_orig_mod'):
            model = model._orig_mod
        elif isinstance(model, nn.parallel.DistributedDataParallel):
            model = model.module
        elif hasattr(model, 'get_base_model'):
            model = model.get_base_model()
        else:
            return model


def _class_name(model: nn.Module) -> str:
    """Return the name of a model's class, not of the one that FSDP2 derives from it."""
    return next(
        c.__name__ for c in type(model).__mro__ if not issubclass(c, FSDPModule)
    )


def _whole(tensor: Tensor) -> Tensor:
    """Return a tensor in one piece: of one that FSDP2 has split, each process has a part."""
    tensor = tensor.detach()
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _fingerprint(state: Mapping[str, Tensor], names: Iterable[str]) -> str:
    return fingerprint((name, _whole(state[name]).cpu()) for name in sorted(names))


def _check_encoder(
    model: nn.Module, saved: Mapping[str, Tensor], config: Mapping[str, Any]
) -> None:
    """Compare an encoder with the one that a folder was made with.

    Raises:
        CheckpointError: Its tensors have other names or shapes, or what is frozen of it
            has other values.
    """
    state = model.state_dict()
    mine = {
        k: v
        for k, v in state.items()
        if not k.startswith(_NECK) and isinstance(v, Tensor)
    }
    theirs = {k: v for k, v in saved.items() if not k.startswith(_NECK)}
    rest = [k for k in mine if k not in theirs]
    frozen = config['frozen_encoder']
    wrong = _differences(theirs, mine) or ([] if frozen else rest)
    if frozen and not wrong and _fingerprint(mine, rest) != frozen:
        wrong = [
            f'the frozen weights of {listing(rest, 2)}, which must be there before'
        ]
    if wrong:
        raise CheckpointError(
            f'The folder was made with another model ({config["model"]}) than this '
            f'{type(model).__name__}: they differ in {listing(wrong, 3)}.'
        )


def _differences(theirs: Mapping[str, Tensor], mine: Mapping[str, Tensor]) -> list[str]:
    """Name the tensors that a model lacks or has in another shape; records vary in length."""
    return [
        f'{k} {list(v.shape)} instead of {list(mine[k].shape) if k in mine else "none"}'
        for k, v in theirs.items()
        if k not in mine or (v.dtype != torch.uint8 and v.shape != mine[k].shape)
    ]
