"""Releases that need no language model: one config file and one weight file.

A checkpoint of ours names the layer that its frozen weights are; a release holds
them. Its config describes the layer by the language model's own configuration
(``arch``), so that nothing is downloaded or looked up where it is used.
"""

from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn

from lm4ve.blocks import LLMBlock, frozen_tensors
from lm4ve.blocks.record_text import KEY
from lm4ve.errors import CheckpointError, UserError, listing
from lm4ve.files import write_text
from lm4ve.release.portable_config import release_config
from lm4ve.release.states import frozen_state, trained_state
from lm4ve.runner.checkpoint_files import meta_of, write_checkpoint
from lm4ve.runner.config import read_checked_config
from lm4ve.tasks.base.building import build_model
from lm4ve.version import __version__

#: What a release keeps of a checkpoint's description.
_KEPT_META = ('epoch', 'iter', 'dataset_meta')


class Release(NamedTuple):
    """What :func:`make_release` wrote.

    Attributes:
        config, checkpoint (Path): The two files.
        kept (int): How many frozen tensors stay in fp32, since 16 bits would change them.
    """

    config: Path
    checkpoint: Path
    kept: int


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
    config = Path(config)
    folder = Path(folder)
    _check_folder(folder)
    config_out = folder / f'{config.stem}.py'
    checkpoint_out = folder / f'{config.stem}.pth'
    present = [str(path) for path in (config_out, checkpoint_out) if path.exists()]
    if present:
        raise UserError(
            f'The release would overwrite {listing(present)}. Fix: another folder.'
        )
    cfg = read_checked_config(config, options, set_scope=False)
    text = release_config(cfg).pretty_text
    model, content = _load(cfg, checkpoint)

    trained = trained_state(model)
    frozen, kept = frozen_state(model, half)
    meta = {}
    for name, value in meta_of(content).items():
        if name in _KEPT_META:
            meta[name] = value
    meta['cfg'] = text  # inferencers read it
    meta['lm4ve_version'] = __version__
    write_checkpoint({**trained, **frozen}, meta, checkpoint_out)
    write_text(text, config_out)
    _check_release(model, config_out, checkpoint_out)
    return Release(config_out, checkpoint_out, kept)


def _check_folder(folder: Path) -> None:
    """Refuse a path for a release's folder that is a file, or ends as a file's name.

    Raises:
        UserError: The message names the folder and what is wrong.
    """
    if folder.is_dir():
        return
    if folder.exists():
        problem = 'is a file'
    elif folder.suffix in ('.py', '.pth', '.safetensors'):
        problem = 'has the name of a file'
    else:
        return
    raise UserError(
        f"out_folder='{folder}' {problem}. Fix: name a folder; the two files in it are named "
        'after the config.'
    )


def _load(cfg: Config, checkpoint: str | Path) -> tuple[nn.Module, dict]:
    """Build a config's model in evaluation mode with a checkpoint.

    Returns:
        tuple[nn.Module, dict]: The model, and the whole content of the checkpoint.
    """
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        model, content = build_model(cfg, checkpoint)
    model.eval()
    return model, content


def _check_release(model: nn.Module, config: Path, checkpoint: Path) -> None:
    """Load the written files as a user would, and compare every tensor with the model's.

    The records of blocks are left out: the model's says where its frozen weights come
    from, the release's that it embeds them.

    Args:
        model (nn.Module): The model that was released.
        config, checkpoint (Path): The written files.

    Raises:
        UserError: A block of the release still needs its language model.
        CheckpointError: A tensor is missing or differs.
    """
    loaded_model, _ = _load(read_checked_config(config, set_scope=False), checkpoint)
    blocks = [m for m in loaded_model.modules() if isinstance(m, LLMBlock)]
    if any(block.checkpoint is not None for block in blocks):
        raise UserError(
            'A block is built by code, so the release still needs its language model. '
            "Fix: give it in the config (block=dict(type='LLMBlock', ...))."
        )
    written = {**model.state_dict(), **frozen_tensors(model)}
    loaded = {**loaded_model.state_dict(), **frozen_tensors(loaded_model)}
    different = []
    for name in sorted(written.keys() | loaded.keys()):
        if name.endswith(KEY):
            continue
        if name not in written or name not in loaded:
            different.append(name)
        elif not torch.equal(written[name], loaded[name]):
            different.append(name)
    if different:
        raise CheckpointError(
            f"'{checkpoint}' was written, but loads as another model: {listing(different)} differ."
        )
