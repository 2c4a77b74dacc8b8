"""One spec a language model family: which parts of its layer are what.

``spec.py`` defines a spec, ``decoders.py``, ``encoders.py`` and ``hybrids.py``
are the table, ``wrappers.py`` lists models that carry one of these families as their
text part, and ``refused.py`` gives the reason where a family cannot be had. A family in
none of them runs by its own layer, if that can be used (``blocks/host_family.py``);
``own_layers.py`` lists those that do.

To add a family: print ``transformers``' layer, name its parts in one of the three, and
add a tiny config of it to ``tests/helpers/families.py``; the parity tests do the rest.
"""

from typing import Any

from transformers import PretrainedConfig
from transformers import __version__ as transformers_version
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from lm4ve.blocks.families.decoders import DECODERS
from lm4ve.blocks.families.encoders import ENCODERS
from lm4ve.blocks.families.hybrids import HYBRIDS
from lm4ve.blocks.families.own_layers import OWN_LAYERS
from lm4ve.blocks.families.refused import REFUSED
from lm4ve.blocks.families.spec import Family, LayerSpec
from lm4ve.blocks.families.wrappers import WRAPPERS
from lm4ve.errors import UnsupportedModelError, check
from lm4ve.llm.foreign_config import FOREIGN_FAMILIES

__all__ = [
    'FAMILIES',
    'OWN_LAYERS',
    'REFUSED',
    'WRAPPERS',
    'LayerSpec',
    'check_supported',
    'layer_spec',
    'unsupported',
]

#: ``model_type`` of a config -> its spec, or a function of the config.
FAMILIES: dict[str, Family] = {**DECODERS, **ENCODERS, **HYBRIDS}

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


def layer_spec(config: PretrainedConfig) -> LayerSpec:
    """Return the spec of a (text) config's layers.

    Raises:
        UnsupportedModelError: There is none, with the reason where the family
            is refused on purpose.
    """
    kind = config.model_type
    if kind not in FAMILIES:
        raise unsupported(kind, 'nothing here describes it')
    spec = FAMILIES[kind]
    if callable(spec):
        spec = spec(config)
    has_experts = any(getattr(config, name, None) for name in _EXPERTS)
    if has_experts and not spec.experts:
        families = ', '.join(HYBRIDS)
        raise UnsupportedModelError(
            f"model_type '{kind}' with experts, which only {families} have."
        )
    return spec


def unsupported(kind: object, reason: str) -> UnsupportedModelError:
    """Return the error for a family that no block can be made of.

    Args:
        kind: Its ``model_type``.
        reason (str): The reason, as the rest of a sentence after "has no layer spec,
            and", for a family that is not refused on purpose.
    """
    why = f'has no layer spec, and {reason}'
    if kind in REFUSED:
        why = f'is refused: {REFUSED[kind]}'
    supported = ', '.join(sorted({*FAMILIES, *OWN_LAYERS, *WRAPPERS}))
    return UnsupportedModelError(
        f"model_type '{kind}' {why}. Supported: {supported}. To add one: "
        'lm4ve/blocks/families (docs/extend/add_a_family.md).'
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
        if family in REFUSED:
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
