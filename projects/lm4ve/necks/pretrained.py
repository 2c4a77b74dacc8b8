"""Folders of trained parts: written by ``save_pretrained``, read by ``from_pretrained``.

As in PEFT, a folder holds what was trained and records what it was trained around: neither
the language model nor the frozen rest of the encoder is in it, and a folder that meets
others than it was made with is refused before anything of the model is changed.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from lm4ve.blocks.provenance import SOURCE_KEY, ProvenanceMixin
from lm4ve.errors import CheckpointError, UserError, listing
from lm4ve.files import write_atomically, write_json
from lm4ve.llm.fingerprint import Fingerprint
from lm4ve.necks.wrapping import build_neck, insert
from lm4ve.version import __version__

WEIGHTS_FILE = 'lm4ve_model.safetensors'
CONFIG_FILE = 'lm4ve_config.json'
#: Name of the neck in the model that has it.
_NECK = 'llm_neck.'


def save_pretrained(model: nn.Module, folder: str | Path) -> None:
    """Write what was trained of a wrapped model.

    That is the neck, every parameter with ``requires_grad`` and every buffer, as
    safetensors, beside a JSON file with the place, the settings and the block's record.
    Frozen parameters of the encoder are not written but fingerprinted.

    Args:
        model (nn.Module): The result of :func:`wrap`; also within DistributedDataParallel
            or ``torch.compile``.
        folder (str | Path): It is made if it is not there.

    Raises:
        UserError: The model was not wrapped, or the folder cannot be written.
    """
    model = _unwrapped(model)
    arguments = _arguments_of(model)
    neck: Any = model.llm_neck
    frozen = {
        n
        for n, p in model.named_parameters(remove_duplicate=False)
        if not p.requires_grad and not n.startswith(_NECK)
    }
    state = {k: v for k, v in model.state_dict().items() if isinstance(v, Tensor)}
    kept = {
        k: v.detach().to('cpu', copy=True).contiguous() for k, v in state.items() if k not in frozen
    }
    config = dict(
        format=1,
        lm4ve=__version__,
        model=type(model).__name__,
        **arguments,
        record=getattr(neck.block, 'source', None),
        frozen_encoder=_fingerprint(state, frozen) if frozen else None,
    )
    write_atomically(save(kept), Path(folder) / WEIGHTS_FILE)
    write_json(config, Path(folder) / CONFIG_FILE)


def from_pretrained(
    model: nn.Module, folder: str | Path, block: str | Mapping[str, Any] | nn.Module | None = None
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
        CheckpointError: The folder is incomplete or damaged, or was made with another
            language model, other settings, another encoder or other frozen weights of it.
            The model is as it was then.
    """
    model, folder = _unwrapped(model), Path(folder)
    config, saved = _read(folder)
    neck: Any
    after, index = config['after'], config['index']
    _check_encoder(model, saved, config)
    wrapped = hasattr(model, 'llm_inserted')
    if wrapped:
        arguments, neck = _arguments_of(model), model.llm_neck
        place = f'after={arguments["after"]!r} and index={arguments["index"]!r}'
        if (arguments['after'], arguments['index']) != (after, index):
            raise CheckpointError(
                f'The folder was made with after={after!r} and index={index!r}, this model was '
                f'wrapped with {place}.'
            )
    else:
        block = config['block'] if block is None else block
        if block is None:
            raise CheckpointError(
                f"'{folder}' was made with a block that was given as a module. Fix: give block= as "
                'for lm4ve.wrap.'
            )
        arguments, neck = build_neck(model, after, index, config['neck'], block)
    # The records are compared here, before anything of the model has changed.
    _load(neck, {k.removeprefix(_NECK): v for k, v in saved.items() if k.startswith(_NECK)})
    if not wrapped:
        insert(model, neck, arguments)
    model.load_state_dict(saved, strict=False)
    return model


def _unwrapped(model: nn.Module) -> nn.Module:
    """Return the model within DistributedDataParallel and ``torch.compile``."""
    while True:
        if isinstance(inner := getattr(model, '_orig_mod', None), nn.Module):
            model = inner
        elif isinstance(model, nn.parallel.DistributedDataParallel):
            model = model.module
        else:
            return model


def _arguments_of(model: nn.Module) -> dict[str, Any]:
    """Return the arguments that a model was wrapped with."""
    arguments = getattr(model, 'llm_inserted', None)
    if isinstance(arguments, dict):
        return arguments
    below = [n for n, m in model.named_modules() if hasattr(m, 'llm_inserted')]
    raise UserError(
        f'{type(model).__name__} was not given a block by lm4ve.wrap. Fix: '
        + (f'give its {listing(below)}, which was.' if below else 'wrap it first.')
    )


def _fingerprint(state: Mapping[str, Tensor], names: Iterable[str]) -> str:
    digest = Fingerprint()
    for name in sorted(names):
        digest.update(name, state[name].detach().cpu())
    return digest.hexdigest()


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read both files of a folder.

    Raises:
        CheckpointError: It is of another version of the format.
    """
    config = json.loads((folder / CONFIG_FILE).read_text(encoding='utf-8'))
    if config['format'] != 1:
        raise CheckpointError(f"'{folder}' has format {config['format']!r}, expected 1.")
    return config, load_file(folder / WEIGHTS_FILE)


def _check_encoder(
    model: nn.Module, saved: Mapping[str, Tensor], config: Mapping[str, Any]
) -> None:
    """Compare an encoder with the one that a folder was made with.

    Raises:
        CheckpointError: Its tensors have other names or shapes, or what is frozen of it has
            other values.
    """
    state = model.state_dict()
    mine = {k: v for k, v in state.items() if not k.startswith(_NECK) and isinstance(v, Tensor)}
    theirs = {k: v for k, v in saved.items() if not k.startswith(_NECK)}
    rest = [k for k in mine if k not in theirs]
    frozen = config['frozen_encoder']
    wrong = _differences(theirs, mine) or ([] if frozen else rest)
    if wrong:
        raise CheckpointError(
            f'The folder was made with another model ({config["model"]}) than this '
            f'{type(model).__name__}: they differ in {listing(wrong, 3)}.'
        )
    if frozen and _fingerprint(mine, rest) != frozen:
        raise CheckpointError(
            f'The folder was trained around other frozen weights of {config["model"]} than this '
            f'model has ({listing(rest, 2)}). Fix: load the weights that the model began with '
            'before, and cast it after lm4ve.from_pretrained.'
        )


def _load(neck: Any, saved: dict[str, Tensor]) -> None:
    """Load a neck, after what differs has been refused: the record first, it is the clearest."""
    record = f'block.{SOURCE_KEY}'
    if isinstance(neck.block, ProvenanceMixin) and record in saved:
        neck.block.load_state_dict({SOURCE_KEY: saved[record]}, strict=False)
    mine = neck.state_dict()
    wrong = _differences(saved, mine) or sorted(mine.keys() - saved.keys())
    if wrong:
        raise CheckpointError(
            f'The folder was made with another neck or block: {listing(wrong, 3)}. Fix: give '
            f'block= the one that {CONFIG_FILE} names.'
        )
    neck.load_state_dict(saved)


def _differences(theirs: Mapping[str, Tensor], mine: Mapping[str, Tensor]) -> list[str]:
    """Name the tensors that a model lacks or has in another shape; records vary in length."""
    return [
        f'{k} {list(v.shape)} instead of {list(mine[k].shape) if k in mine else "none"}'
        for k, v in theirs.items()
        if k not in mine or (v.dtype != torch.uint8 and v.shape != mine[k].shape)
    ]
