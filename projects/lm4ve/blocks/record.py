"""What a checkpoint says of a block: where its frozen weights come from, and its settings."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lm4ve.blocks.heads import ALL, GROUPED

#: The format of records beside weights of tiled heads in the language model's order. In
#: files of format 1 query heads had been moved, so that those of a group were neighbors.
ORDERED_HEADS = 2
FORMATS = (1, ORDERED_HEADS)


@dataclass(frozen=True, kw_only=True)
class BlockRecord:
    """The record of a block. Its fields are written in this order.

    Attributes:
        format (int): The version of the record itself: :data:`ORDERED_HEADS` where a file
            holds weights of tiled heads, else 1.
        source (str): The user's name of the language model.
        model_type (str): Its family.
        layers (list[int]): Which layers, from 0.
        pretrained (bool | str): Whether the weights are the model's, random, 'permuted'
            or 'scaled'.
        fingerprint (str): The fingerprint of the layers' weights.
        seed (int | None): The seed of all but the model's own weights.
        causal (bool | dict): The field of :class:`lm4ve.blocks.LLMBlock`, as are the
            next two.
        causal_suffix (int): See above.
        lora (dict | str): What :func:`lm4ve.blocks.adapters.add_lora` returns, or
            'none'.
        dtype (str): The field, or the type that the model was cast to.
        window (bool | None): The field; None where no layer has a window.
        rotary (bool | str): The field; False where no layer has rotary embedding.
        final_norm (bool): Whether there is a norm after the last layer.
        config (dict): The fields of the language model's config that affect the layers.
        kv_heads (str): The field; 'grouped' where no heads share keys and values. That
            is not written, and a record without it means it.
        kept_heads (list[list[int]] | str): The query heads that each layer keeps;
            'all', which is not written either.
    """

    format: int = 1
    source: str
    model_type: str
    layers: list[int]
    pretrained: bool | str
    fingerprint: str
    seed: int | None
    causal: bool | dict[str, float]
    causal_suffix: int
    lora: dict[str, Any] | str
    dtype: str
    window: bool | None
    rotary: bool | str
    final_norm: bool
    config: dict[str, Any]
    kv_heads: str = GROUPED
    kept_heads: list[list[int]] | str = ALL

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain data. A neck adds its settings to them."""
        fields = dict(vars(self))
        if self.kv_heads == GROUPED:
            del fields['kv_heads']
        if self.kept_heads == ALL:
            del fields['kept_heads']
        return fields


#: Fields that say which weights a block has -> their types, in a checkpoint's record.
#: All others are settings: see :data:`lm4ve.blocks.provenance.SETTINGS`.
FIELD_TYPES: dict[str, Any] = {
    'format': int,
    'source': str,
    'model_type': str,
    'layers': list,
    'pretrained': (bool, str),
    'fingerprint': str,
    'seed': (int, type(None)),
    'dtype': str,
    'config': dict,
    'embedded': str,  # the fingerprint of a release's embedded weights
}
#: Those of them that a record may lack: older ones, and the last one most.
OPTIONAL_FIELDS = ('dtype', 'config', 'embedded')
#: Types that a block may have, or be cast to.
RECORDED_DTYPES = ('float64', 'float32', 'bfloat16', 'float16')


def describe(record: Mapping[str, Any]) -> str:
    """Describe a record in one line: which layers of what."""
    if record['pretrained'] is True:
        origin = 'pre-trained'
    elif record['pretrained']:
        origin = f'{record["pretrained"]} with seed {record["seed"]}'
    else:
        origin = f'random with seed {record["seed"]}'
    return (
        f"layers {record['layers']} of '{record['source']}' "
        f'({record["model_type"]}, {origin}, fingerprint {record["fingerprint"][:12]})'
    )
