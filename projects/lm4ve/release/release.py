"""Releases that need no language model: one config file and one weight file.

A checkpoint of ours names the layer that its frozen weights are; a release holds
them. Its config describes the layer by the language model's own configuration
(``arch``), so that nothing is downloaded or looked up where it is used.
"""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn
from transformers import PretrainedConfig

from lm4ve.blocks import LLMBlock, frozen_tensors
from lm4ve.blocks.config_fields import layer_fields
from lm4ve.blocks.language_model import LanguageModel
from lm4ve.blocks.provenance import SOURCE_KEY, decode_source, encode_source
from lm4ve.errors import CheckpointError, UserError, listing
from lm4ve.files import write_text
from lm4ve.llm.fingerprint import fingerprint, smallest_exact_dtype
from lm4ve.runner.checkpoint_files import meta_of, write_checkpoint
from lm4ve.runner.config import read_checked_config
from lm4ve.tasks.base.building import build_model
from lm4ve.version import __version__


class Release(NamedTuple):
    """What :func:`make_release` wrote.

    Attributes:
        config, checkpoint (Path): The two files.
        kept (int): Frozen tensors that 16 bits would have changed.
    """

    config: Path
    checkpoint: Path
    kept: int


def portable_arch(config: PretrainedConfig) -> dict:
    """Describe a language model's layers in plain data, for ``LLMBlock.arch``.

    Args:
        config (PretrainedConfig): Its (text) config.

    Returns:
        dict: ``model_type`` and every field that its layers depend on, also
        those that have their default value (defaults change between versions
        of ``transformers``).

    Raises:
        UserError: A field does not survive the way through a config file.
    """
    fields = layer_fields(config)
    plain = json.loads(json.dumps(fields, allow_nan=False))
    again = layer_fields(LanguageModel(None, plain).config)
    lost = [
        k
        for k in {*fields, *again}
        if json.dumps(fields.get(k)) != json.dumps(again.get(k))
    ]
    if lost:
        raise UserError(
            f"The config of this '{config.model_type}' does not survive a config file: "
            f'{listing(sorted(lost))} differ(s). Fix: test with the language model itself.'
        )
    return plain


def release_config(cfg: Config) -> Config:
    """Flatten a config and make it independent of other files.

    Blocks get ``checkpoint=None, pretrained=False`` and the ``arch`` of their
    language model; pre-trained weights of encoders and left-over variables are
    taken out.

    Args:
        cfg (Config): With everything merged; it is not changed.

    Returns:
        Config: Plain data only.

    Raises:
        CheckpointError: A block's language model cannot be found.
        UserError: See :func:`portable_arch`.
    """
    fields = copy.deepcopy(cfg.to_dict())
    # `get` alone does not search the config's scope.
    with MODELS.switch_scope_and_registry(fields.get('default_scope')) as scoped:
        for node in all_dicts(fields['model']):
            if _is_block(node):
                _make_portable(node)
            # A class that reads files when it is built describes what it read.
            kind = node.get('type')
            found = scoped.get(kind) if isinstance(kind, str) else kind
            if found is not None and hasattr(found, 'portable'):
                node.update(found.portable(node))
            _without_pretrained(node)
    # Variables that the model was assembled from, now without a use; they name
    # the language model's folder.
    left_out = ('work_dir', 'launcher')
    fields = {k: v for k, v in fields.items() if not _is_block(v) and k not in left_out}
    fields.update(load_from=None, resume=False)
    imports = fields.setdefault('custom_imports', dict(imports=[]))
    names = imports['imports']
    imports['imports'] = ['lm4ve', *([names] if isinstance(names, str) else names)]
    return Config(fields)


def all_dicts(node: object) -> Iterator[dict]:
    """Yield the dictionaries within plain data, outer ones first."""
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for value in node:
            yield from all_dicts(value)


def _is_block(node: object) -> bool:
    # With a scope ('mmengine.LLMBlock') or as a class's full name, too.
    return (
        isinstance(node, dict)
        and str(node.get('type')).split('.')[-1] == LLMBlock.__name__
    )


def _make_portable(block: dict) -> None:
    model = LanguageModel(block.get('checkpoint'), block.get('arch'))
    block.update(
        checkpoint=None,
        pretrained=False,
        # Without negative indices, which would hide which layer it is.
        layers=tuple(model.resolve_layers(block.get('layers', (-1,)))),
        arch=portable_arch(model.config),
    )


def _without_pretrained(node: dict) -> None:
    """Take out weights that a release replaces, and that may not be there."""
    for key in ('pretrained', 'checkpoint'):
        if isinstance(node.get(key), str):
            node[key] = None
    inits = node.get('init_cfg') or []
    if isinstance(inits, dict):
        inits = [inits]
    kept = [init for init in inits if init.get('type') != 'Pretrained']
    if len(kept) < len(inits):
        node['init_cfg'] = kept


def make_release(
    config: str | Path,
    checkpoint: str | Path,
    folder: str | Path,
    half: bool = False,
    options: dict | None = None,
) -> Release:
    """Write a self-contained release and check that it holds the same model.

    Args:
        config (str | Path): The config that the model was trained with.
        checkpoint (str | Path): Its checkpoint; of it, only ``state_dict`` is
            taken (what a test evaluates).
        folder (str | Path): Gets ``<name of config>.py`` and ``.pth``.
        half (bool): Store frozen fp32 tensors in 16 bits where that loses
            nothing, as of language models that were published in 16 bits.
        options (dict, optional): Overrides of config fields.

    Returns:
        Release: The files.

    Raises:
        CheckpointError: The checkpoint is not of this config, or of another
            language model.
        UserError: A file of the release exists, or ``folder`` is a file.
    """
    config, folder = Path(config), Path(folder)
    _check_folder(folder)
    out = folder / f'{config.stem}.py', folder / f'{config.stem}.pth'
    if there := [str(path) for path in out if path.exists()]:
        raise UserError(
            f'The release would overwrite {listing(there)}. Fix: another folder.'
        )
    cfg = read_checked_config(config, options, set_scope=False)
    text = release_config(cfg).pretty_text
    model, content = _load(cfg, checkpoint)
    frozen, kept = frozen_state(model, half)
    meta = {
        k: v
        for k, v in meta_of(content).items()
        if k in ('epoch', 'iter', 'dataset_meta')
    }
    meta.update(cfg=text, lm4ve_version=__version__)  # inferencers read `cfg`
    write_checkpoint({**trained_state(model), **frozen}, meta, out[1])
    write_text(text, out[0])
    _check(model, *out)
    return Release(*out, kept)


def _check_folder(folder: Path) -> None:
    """Refuse a folder of a release that is a file or has the name of one.

    Raises:
        UserError: It is, or it has.
    """
    is_new = not folder.exists()
    if folder.is_dir() or (
        is_new and folder.suffix not in ('.py', '.pth', '.safetensors')
    ):
        return
    raise UserError(
        f"out_folder='{folder}' {'has the name of a file' if is_new else 'is a file'}. Fix: name "
        'a folder; the two files in it are named after the config.'
    )


def _load(cfg: Config, checkpoint: str | Path) -> tuple[nn.Module, dict]:
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        model, content = build_model(cfg, checkpoint)
    model.eval()
    return model, content


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """Return a model's state for another machine: records without folders of this one."""
    state = model.state_dict()
    for name in state:
        if name.rpartition('.')[2] == SOURCE_KEY:
            frozen = sorted(
                frozen_tensors(model.get_submodule(name.rpartition('.')[0])).items()
            )
            record = without_folder(decode_source(state[name]))
            state[name] = encode_source(dict(record, embedded=fingerprint(frozen)))
    return state


def frozen_state(model: nn.Module, half: bool = False) -> tuple[dict[str, Tensor], int]:
    """Collect the frozen tensors of all blocks, by their names in the file."""
    state, kept = {}, 0
    for path, module in model.named_modules():
        if not isinstance(module, LLMBlock):
            continue
        for name, tensor in module.frozen_state().items():
            if half and tensor.dtype == torch.float32:
                tensor = tensor.to(smallest_exact_dtype(tensor))
                kept += tensor.dtype == torch.float32
            state[f'{path}.{name}' if path else name] = tensor
    return state, kept


def without_folder(source: dict) -> dict:
    """Reduce the place in a block's record to the name of its folder or file.

    Where the language model lay on one machine is of no use elsewhere.
    """
    path = Path(source['source']).expanduser()
    return dict(source, source=path.resolve().name) if path.exists() else source


def _check(model: nn.Module, config: Path, checkpoint: Path) -> None:
    """Load the written files and compare every tensor with the model's."""
    again, _ = _load(read_checked_config(config, set_scope=False), checkpoint)
    blocks = [m for m in again.modules() if isinstance(m, LLMBlock)]
    if any(block.checkpoint is not None for block in blocks):
        raise UserError(
            'A block is built by code, so the release still needs its language model. '
            "Fix: give it in the config (block=dict(type='LLMBlock', ...))."
        )
    ours = {**model.state_dict(), **frozen_tensors(model)}
    theirs = {**again.state_dict(), **frozen_tensors(again)}
    different = [
        k
        for k in sorted({*ours, *theirs})
        if not k.endswith(SOURCE_KEY)
        and not (k in ours and k in theirs and torch.equal(ours[k], theirs[k]))
    ]
    if different:
        raise CheckpointError(
            f"'{checkpoint}' was written, but loads as another model: {listing(different)} differ."
        )
