"""Configs that need no other file: of a language model they hold its own configuration."""

import copy
import json
from collections.abc import Iterator

from mmengine.config import Config
from mmengine.registry import MODELS, Registry
from transformers import PretrainedConfig

from lm4ve.blocks import LLMBlock
from lm4ve.blocks.config_fields import layer_fields
from lm4ve.blocks.language_model import LanguageModel
from lm4ve.errors import UserError, listing


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
    lost = []
    for name in fields.keys() | again.keys():
        if json.dumps(fields.get(name)) != json.dumps(again.get(name)):
            lost.append(name)
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
            _make_independent(node, scoped)
    for name in ('work_dir', 'launcher'):
        fields.pop(name, None)
    # Variables that the model was assembled from, now without a use; they name the
    # language model's folder.
    fields = {name: value for name, value in fields.items() if not _is_block(value)}
    fields.update(load_from=None, resume=False)
    _import_lm4ve(fields)
    return Config(fields)


def _make_independent(node: dict, registry: Registry) -> None:
    """Let a dict of the model name no file that may not be there.

    Args:
        node (dict): Is changed.
        registry (Registry): Finds the class that its type names.
    """
    if _is_block(node):
        _make_portable(node)
    # A class that reads files when it is built describes what it read.
    kind = node.get('type')
    if isinstance(kind, str):
        kind = registry.get(kind)
    if kind is not None and hasattr(kind, 'portable'):
        node.update(kind.portable(node))
    _without_pretrained(node)


def _import_lm4ve(fields: dict) -> None:
    """Add lm4ve to the modules that a config imports."""
    imports = fields.setdefault('custom_imports', dict(imports=[]))
    names = imports['imports']
    if isinstance(names, str):
        names = [names]
    imports['imports'] = ['lm4ve', *names]


def all_dicts(node: object) -> Iterator[dict]:
    """Yield the dictionaries within plain data, outer ones first."""
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for value in node:
            yield from all_dicts(value)


def _is_block(node: object) -> bool:
    """Return whether plain data are the config of an :class:`LLMBlock`."""
    if not isinstance(node, dict):
        return False
    # With a scope ('mmengine.LLMBlock') or as a class's full name, too.
    name = str(node.get('type')).rpartition('.')[2]
    return name == LLMBlock.__name__


def _make_portable(block: dict) -> None:
    """Describe the language model of a block's config instead of naming its files."""
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
    inits = node.get('init_cfg')
    if not inits:
        return
    if isinstance(inits, dict):
        inits = [inits]
    kept = [init for init in inits if init.get('type') != 'Pretrained']
    if len(kept) < len(inits):
        node['init_cfg'] = kept
