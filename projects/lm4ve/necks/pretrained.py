"""Folders of trained parts: written by ``save_pretrained``, read by ``from_pretrained``.

As in PEFT, a folder holds what was trained and says what it was trained around: neither
the language model nor the frozen rest of the encoder is in it, and a folder that meets
others than it was made with is refused before anything of the model is changed.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from lm4ve.blocks.provenance import SOURCE_KEY, RecordsFrozenSource
from lm4ve.errors import CheckpointError, UserError, listing
from lm4ve.files import write_atomically, write_json
from lm4ve.llm.fingerprint import Fingerprint
from lm4ve.necks.llm_block_neck import LLMBlockNeck
from lm4ve.necks.wrapping import (
    Inserted,
    build_block,
    build_neck,
    check_filled,
    check_unwrapped,
    insert,
    place_of,
)
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
        model (nn.Module): What :func:`wrap` returned; also within DistributedDataParallel
            or ``torch.compile``.
        folder (str | Path): It is made if it is not there.

    Raises:
        UserError: The model was not wrapped, or the folder cannot be written.
    """
    model = _unwrapped(model)
    inserted = _inserted(model)
    neck: Any = model.llm_neck
    frozen = {
        n
        for n, p in model.named_parameters(remove_duplicate=False)
        if not p.requires_grad and not n.startswith(_NECK)
    }
    state = {k: v for k, v in model.state_dict().items() if isinstance(v, Tensor)}
    kept = {k: v.detach().to('cpu', copy=True).contiguous() for k, v in state.items()}
    kept = {k: v for k, v in kept.items() if k not in frozen}
    config = dict(
        format=1,
        lm4ve=__version__,
        model=type(model).__name__,
        after=inserted.after,
        index=inserted.index,
        neck=inserted.neck,
        block=inserted.block,
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
        folder (str | Path): What :func:`save_pretrained` wrote.
        block (str | dict | nn.Module, optional): What :func:`wrap` takes. It says where the
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
    origin = f"'{folder}'"
    _check_encoder(model, saved, config, origin)
    inserted = None
    if hasattr(model, 'llm_inserted'):
        _check_place(_inserted(model), config, origin)
        neck: Any = model.llm_neck
    else:
        check_unwrapped(model)
        check_filled(model, place_of(model, config['after']))
        given = config['block'] if block is None else block
        if given is None:
            raise CheckpointError(
                f'{origin} was made with a block that was given as a module, and does not say how '
                'to build it. Fix: give block= as for lm4ve.wrap.'
            )
        made, settings = build_block(given)
        neck = build_neck(config['neck'], made)
        inserted = Inserted(config['after'], config['index'], config['neck'], settings)
    # The records are compared here, before anything of the model has changed.
    own = {k.removeprefix(_NECK): v for k, v in saved.items() if k.startswith(_NECK)}
    _load(neck, own, origin)
    if inserted is not None:
        insert(model, neck, inserted)
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


def _inserted(model: nn.Module) -> Inserted:
    found = getattr(model, 'llm_inserted', None)
    if isinstance(found, Inserted):
        return found
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
        CheckpointError: One is missing or damaged.
    """
    path = folder / CONFIG_FILE
    try:
        config = json.loads(path.read_text(encoding='utf-8'))
        if config['format'] != 1:
            raise CheckpointError(
                f"'{path}' has format {config['format']!r}, which this release of lm4ve does not "
                'know. Fix: update lm4ve.'
            )
        missing = {'after', 'index', 'neck', 'block', 'frozen_encoder', 'model'} - config.keys()
        if missing:
            raise KeyError(*sorted(missing))
        path = folder / WEIGHTS_FILE
        saved = load_file(path)
        saved[f'{_NECK}mapper_in.weight']
    except FileNotFoundError as e:
        raise CheckpointError(
            f"'{path}' does not exist. Fix: name a folder that lm4ve.save_pretrained wrote."
        ) from e
    except CheckpointError:
        raise
    except (OSError, ValueError, TypeError, KeyError, safetensors.SafetensorError) as e:
        raise CheckpointError(
            f"'{path}' is damaged or was not written by lm4ve.save_pretrained "
            f'({type(e).__name__}: {e}). Fix: copy the folder again.'
        ) from e
    return config, saved


def _check_encoder(
    model: nn.Module, saved: Mapping[str, Tensor], config: Mapping[str, Any], origin: str
) -> None:
    """Compare an encoder with the one that a folder was made with.

    Raises:
        CheckpointError: Its tensors have other names or shapes, or what is frozen of it has
            other values.
    """
    mine = {k: v for k, v in model.state_dict().items() if not k.startswith(_NECK)}
    theirs = {k: v for k, v in saved.items() if not k.startswith(_NECK)}
    wrong = [k for k in theirs if k not in mine]
    wrong += [
        f'{k} {list(v.shape)} instead of {list(mine[k].shape)}'
        for k, v in theirs.items()
        if k in mine and v.shape != mine[k].shape
    ]
    rest = [k for k, v in mine.items() if k not in theirs and isinstance(v, Tensor)]
    frozen = config['frozen_encoder']
    if wrong or (rest and not frozen):
        raise CheckpointError(
            f'{origin} was made with another model ({config["model"]}) than this '
            f'{type(model).__name__}: they differ in {listing(wrong or rest, 3)}. Fix: build the '
            'model with the arguments that it had.'
        )
    if frozen and _fingerprint(mine, rest) != frozen:
        raise CheckpointError(
            f'{origin} was trained around other frozen weights of {config["model"]} than this '
            f'model has ({listing(rest, 2)}). Fix: load the weights that the model began with '
            'before, and cast it after lm4ve.from_pretrained.'
        )


def _check_place(inserted: Inserted, config: Mapping[str, Any], origin: str) -> None:
    for name in ('after', 'index'):
        mine = getattr(inserted, name)
        if mine != config[name]:
            raise CheckpointError(
                f'{origin} was made with {name}={config[name]!r}, this model was wrapped with '
                f'{mine!r}. Fix: give a model that is not wrapped, or wrap it as that one was.'
            )


def _load(neck: LLMBlockNeck, saved: dict[str, Tensor], origin: str) -> None:
    """Load a neck, after what differs has been refused: the record first, it says most."""
    record = f'block.{SOURCE_KEY}'
    if isinstance(neck.block, RecordsFrozenSource) and record in saved:
        neck.block.load_state_dict({SOURCE_KEY: saved[record]}, strict=False)
    mine = neck.state_dict()
    wrong = sorted(mine.keys() ^ saved.keys())
    wrong += [
        f'{k} {list(v.shape)} instead of {list(mine[k].shape)}'
        for k, v in saved.items()
        if k in mine and v.dtype != torch.uint8 and v.shape != mine[k].shape
    ]
    if wrong:
        raise CheckpointError(
            f'{origin} was made with another neck or block: {listing(wrong, 3)}. Fix: give '
            f'block= the one that {CONFIG_FILE} names.'
        )
    neck.load_state_dict(saved)
