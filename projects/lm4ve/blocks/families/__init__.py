"""One spec a language model family: which parts of its layer are what.

``spec.py`` says what a spec can name, ``decoders.py``, ``encoders.py`` and ``hybrids.py``
are the table, ``wrappers.py`` lists models that carry one of these families as their text
part, and ``refused.py`` gives the reason where a family cannot be had.

To add a family: print ``transformers``' layer, name its parts in one of the three, and add
a tiny config of it to ``tests/helpers/families.py``; the parity tests do the rest.
"""

from typing import Any

from transformers import PretrainedConfig

from lm4ve.blocks.families.decoders import DECODERS
from lm4ve.blocks.families.encoders import ENCODERS
from lm4ve.blocks.families.hybrids import HYBRIDS
from lm4ve.blocks.families.refused import REFUSED
from lm4ve.blocks.families.spec import Family, LayerSpec
from lm4ve.blocks.families.wrappers import WRAPPERS
from lm4ve.errors import UnsupportedModelError

__all__ = ['FAMILIES', 'REFUSED', 'WRAPPERS', 'LayerSpec', 'check_supported', 'layer_spec']

#: ``model_type`` of a config -> its spec, or a function of the config.
FAMILIES: dict[str, Family] = {**DECODERS, **ENCODERS, **HYBRIDS}

# Names of the number of layers. transformers makes lists of that length.
_DEPTHS = ('num_hidden_layers', 'n_layer', 'n_layers', 'num_layers', 'num_decoder_layers')
_DEEPEST = 10_000
# Fields by which configs name a mixture of experts.
_EXPERTS = ('num_experts', 'num_local_experts', 'n_routed_experts', 'moe_num_experts')
_MOST_EXPERTS = 10_000


def layer_spec(config: PretrainedConfig) -> LayerSpec:
    """Return the spec of a (text) config's layers.

    Raises:
        UnsupportedModelError: There is none, with the reason where the family
            is refused on purpose.
    """
    kind = config.model_type
    if kind not in FAMILIES:
        raise _unsupported(kind)
    family = FAMILIES[kind]
    spec = family(config) if callable(family) else family
    if not spec.experts and any(getattr(config, name, None) for name in _EXPERTS):
        raise UnsupportedModelError(
            f"model_type '{kind}' with experts: lm4ve reads mixtures of experts of "
            f'{", ".join(k for k in FAMILIES if k in HYBRIDS)} only. Fix: choose a dense model.'
        )
    return spec


def _unsupported(kind: str) -> UnsupportedModelError:
    supported = ', '.join(sorted({*FAMILIES, *WRAPPERS}))
    if kind in REFUSED:
        return UnsupportedModelError(
            f"model_type '{kind}' is refused: {REFUSED[kind]}. Supported: {supported}."
        )
    return UnsupportedModelError(
        f"model_type '{kind}' has no layer spec. Supported: {supported}. "
        'Fix: choose one of these for block.checkpoint, or add a spec to '
        'lm4ve/blocks/families (docs/extend/add_a_family.md).'
    )


def check_supported(config: dict[str, Any]) -> None:
    """Refuse a raw ``config.json`` that no block can be built of.

    Args:
        config (dict): The parsed file.

    Raises:
        UnsupportedModelError: Unknown or refused family, quantized weights, or a layout
            that needs remote code.
    """
    kind = config.get('model_type', '')
    text = config.get('text_config') or {}
    if not isinstance(kind, str) or not isinstance(text, dict):
        raise UnsupportedModelError(
            'model_type of config.json is no text, or text_config no dict. Fix: copy it again.'
        )
    for field in (*_DEPTHS, *_EXPERTS):
        limit = _DEEPEST if field in _DEPTHS else _MOST_EXPERTS
        if any(isinstance(n := d.get(field), int) and n > limit for d in (config, text)):
            what = 'layers' if field in _DEPTHS else 'experts'
            raise UnsupportedModelError(
                f"model_type '{kind}' has over {limit:,} {what} ({field}), as no model does. "
                'Fix: copy config.json again.'
            )
    if config.get('quantization_config') or text.get('quantization_config'):
        raise UnsupportedModelError(
            f"model_type '{kind}' with quantization_config: quantized weights have no gradient "
            'with respect to their input in plain PyTorch. Fix: point block.checkpoint at the '
            "unquantized release and set block.dtype='bfloat16' to save memory."
        )
    named = text.get('model_type', kind)
    if kind in REFUSED:
        raise _unsupported(kind)
    # Of a wrapper that does not name its text part's family, the built config tells it.
    if named not in FAMILIES and kind not in WRAPPERS:
        raise _unsupported(str(named))
