"""The families of language models: one table, a row each (``table.py``).

``spec.py`` defines what a row may say of a layer's parts. A family that is in no row runs
by its own layer, if that can be used (``blocks/host_family.py``).

To add a family see docs/extend/add_a_family.md.
"""

from typing import Any

from transformers import PretrainedConfig
from transformers import __version__ as transformers_version
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from lm4ve.blocks.families.spec import LayerSpec
from lm4ve.blocks.families.table import FAMILIES, Family
from lm4ve.errors import UnsupportedModelError, check
from lm4ve.llm.foreign_config import FOREIGN_FAMILIES

__all__ = [
    'FAMILIES',
    'Family',
    'LayerSpec',
    'check_supported',
    'layer_spec',
    'unsupported',
]

#: Fields with the number of layers, of which transformers makes lists, and of experts.
_DEPTHS = (
    'num_hidden_layers',
    'n_layer',
    'n_layers',
    'num_layers',
    'num_decoder_layers',
)
_EXPERTS = ('num_experts', 'num_local_experts', 'n_routed_experts', 'moe_num_experts')
#: More layers or experts than any model has.
_MOST_ENTRIES = 10_000


def layer_spec(config: PretrainedConfig) -> LayerSpec | None:
    """Return the spec of a (text) config's layers; None of a family without one.

    Raises:
        UnsupportedModelError: The family has a spec, but the config has experts.
    """
    kind = config.model_type
    row = FAMILIES.get(kind)
    if row is None or row.spec is None:
        return None
    if any(getattr(config, name, None) for name in _EXPERTS):
        raise UnsupportedModelError(
            f"model_type '{kind}' with experts, which its layers do not have."
        )
    if callable(row.spec):
        return row.spec(config)
    return row.spec


def unsupported(kind: object, reason: str) -> UnsupportedModelError:
    """Return the error for a family that no block can be made of.

    Args:
        kind: Its ``model_type``.
        reason (str): The reason, as the rest of a sentence after "has no layer spec,
            and", for a family that is not refused on purpose.
    """
    why = f'has no layer spec, and {reason}'
    row = FAMILIES.get(str(kind))
    if row is not None and row.is_refused:
        why = f'is {row.reason}'
    supported = [name for name, row in FAMILIES.items() if not row.is_refused]
    return UnsupportedModelError(
        f"model_type '{kind}' {why}. Supported: {', '.join(sorted(supported))}. To add "
        'one: lm4ve/blocks/families (docs/extend/add_a_family.md).'
    )


def check_supported(config: dict[str, Any]) -> None:
    """Refuse a raw ``config.json`` that no block can be built of.

    Args:
        config (dict): The parsed file; its ``model_type`` is a string.

    Raises:
        UnsupportedModelError: Unknown or refused family, quantized weights, or a layout
            that needs remote code.
        UserError: A field has a value that no model has.
    """
    kind = config['model_type']
    text = config.get('text_config')
    if not text:
        text = {}
    check('text_config of config.json', text, kind=dict)
    _check_fields(config, kind)
    _check_fields(text, kind)
    for family in (kind, text.get('model_type', kind)):
        row = FAMILIES.get(family)
        if row is not None and row.is_refused:
            raise unsupported(family, '')
    if kind not in CONFIG_MAPPING_NAMES and kind not in FOREIGN_FAMILIES:
        raise unsupported(kind, f'transformers {transformers_version} does not have it')


def _check_fields(fields: dict[str, Any], kind: str) -> None:
    """Refuse a config with absurdly many layers or experts, or with quantized weights.

    transformers builds a list with an entry for each, and a damaged file could ask for
    billions. It refuses other types, and numbers that are too small, itself.

    Args:
        fields (dict): A config, or the part of it that concerns text.
        kind (str): Its ``model_type``, for messages.

    Raises:
        UserError: There are more than :data:`_MOST_ENTRIES` layers or experts.
        UnsupportedModelError: The weights are quantized.
    """
    for name in (*_DEPTHS, *_EXPERTS):
        count = fields.get(name)
        if isinstance(count, int):
            check(f'{name} of config.json', count, most=_MOST_ENTRIES)
    if fields.get('quantization_config'):
        raise UnsupportedModelError(
            f"model_type '{kind}' with quantization_config. Fix: the unquantized "
            'release.'
        )
