"""Makes configs that need no other file: they hold the language model's configuration."""

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
        config (PretrainedConfig): The language model's own config; of a model with
            several parts, that of its text part.

    Returns:
        dict: ``model_type`` and every field that its layers depend on, also
        those that have their default value (defaults change between versions
        of ``transformers``).

    Raises:
        UserError: A field has another value once the plain data are read again.
        ValueError: A number is infinite or NaN, which JSON does not have.
    """
    fields = layer_fields(config)
    plain = json.loads(json.dumps(fields, allow_nan=False))
    fields_of_plain = layer_fields(LanguageModel(None, plain).config)
    lost = []
    for name in fields.keys() | fields_of_plain.keys():
        # A field that is None and one that is missing mean the same.
        before = json.dumps(fields.get(name))
        after = json.dumps(fields_of_plain.get(name))
        if before != after:
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
    # Variables at the top that the model's block was inherited from have no use any more,
    # and name the language model's folder.
    fields = {name: value for name, value in fields.items() if not _is_block(value)}
    fields.update(load_from=None, resume=False)
    _add_import_of_lm4ve(fields)
    return Config(fields)


def _make_independent(node: dict, registry: Registry) -> None:
    """Change a dict of a model's config so that it names no file.

    - The config of a block describes its language model instead.
    - A class that reads files when it is built has a class method ``portable``, which
      returns the fields that hold what it reads.
    - Pre-trained weights are removed, since the release's own replace them.

    Args:
        node (dict): A dict of the config, which need not describe a module. It is
            changed; dicts inside it are not.
        registry (Registry): Finds the class that its type names.
    """
    if _is_block(node):
        _describe_language_model(node)
    built_class = _class_of(node, registry)
    if built_class is not None and hasattr(built_class, 'portable'):
        node.update(built_class.portable(node))
    _remove_pretrained(node)


def _class_of(node: dict, registry: Registry) -> type | None:
    """Return the class that a dict of a config is built to.

    It is None for a dict without a type, and for a type that the registry lacks.
    """
    named = node.get('type')
    if isinstance(named, str):
        return registry.get(named)
    return named


def _add_import_of_lm4ve(fields: dict) -> None:
    """Put lm4ve first in the ``custom_imports`` of a config, which is changed.

    A config that has it already names it twice, which imports it once.
    """
    imports = fields.setdefault('custom_imports', dict(imports=[]))
    names = imports['imports']
    if isinstance(names, str):
        names = [names]
    imports['imports'] = ['lm4ve.openmmlab', *names]


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
    # The type may have a scope ('mmengine.LLMBlock') or be a class's full name.
    name = str(node.get('type')).rpartition('.')[2]
    return name == LLMBlock.__name__


def _describe_language_model(block: dict) -> None:
    """Replace the checkpoint in a block's config by the configuration of its language model.

    The config is changed. A block that is built of it has random weights, which a
    release's own replace.

    Raises:
        CheckpointError: The language model cannot be found.
        UserError: See :func:`portable_arch`.
    """
    model = LanguageModel(block.get('checkpoint'), block.get('arch'))
    block.update(
        checkpoint=None,
        pretrained=False,
        # Counted from 0: a negative index does not show which layer it is.
        layers=tuple(model.resolve_layers(block.get('layers', (-1,)))),
        arch=portable_arch(model.config),
    )


def _remove_pretrained(node: dict) -> None:
    """Remove the pre-trained weights that a dict of a config names, in place.

    A release's own weights replace them, and their files may not exist elsewhere.
    """
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
