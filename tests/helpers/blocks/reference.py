"""``transformers``' own layers, called one at a time: the reference."""

import inspect
from functools import cache

import torch
from torch import Tensor

from tests.helpers.families import FAMILIES, decoder_layers, random_model


@cache
def own_arguments(model, index: int, length: int) -> dict:
    """What a whole model gives a layer."""
    layer = decoder_layers(model)[index]
    signature = inspect.signature(layer.forward)
    calls = []

    def note(module, args, kwargs):
        calls.append(signature.bind(*args, **kwargs).arguments)

    hook = layer.register_forward_pre_hook(note, with_kwargs=True)
    width = model.get_input_embeddings().weight.shape[1]
    model(inputs_embeds=torch.zeros(1, length, width))
    hook.remove()
    return calls[0]


def own_mask(model, index: int, length: int) -> Tensor:
    """Where a whole model lets the tokens of a layer look, ``[N, N]``."""
    layer = decoder_layers(model)[index]
    mask = own_arguments(model, index, length).get('attention_mask')
    if mask is None:
        visible = torch.ones(length, length, dtype=torch.bool)
    else:
        visible = mask[0, 0] == 0
    for module in layer.modules():
        if hasattr(module, 'own_mask'):
            visible = visible & module.own_mask[0, 0, :length, :length]
    return visible


def mask_of(
    model, index: int, x: Tensor, causal: bool, padding: Tensor | None
) -> Tensor:
    """Additive mask ``[B, 1, N, N]`` as eager attention takes it.

    What the model masks itself counts with ``causal``, or where it sees both ways.
    """
    batch, length, _ = x.shape
    visible = torch.ones(batch, 1, length, length).bool()
    if causal:
        visible = visible.tril()
    own = own_mask(model, index, length)
    sees_later_tokens = own.triu(1).any()
    if causal or sees_later_tokens:
        visible = visible & own
    if padding is not None:
        visible = visible & ~padding[:, None, None, :]
    lowest = torch.finfo(torch.float32).min
    return torch.zeros(visible.shape).masked_fill(~visible, lowest)


def takes_rotary(model) -> bool:
    """Whether the layers of a model take rotary tables."""
    signature = inspect.signature(decoder_layers(model)[0].forward)
    return 'position_embeddings' in signature.parameters


def rotary_tables(model, index: int, x: Tensor, rotary: bool):
    """The tables of one layer in the family's form; of angle zero without rotary."""
    tables = own_arguments(model, index, x.shape[1]).get('position_embeddings')
    if rotary or tables is None:
        return tables
    if isinstance(tables, Tensor):  # llama4: complex numbers
        return torch.ones_like(tables)
    ones = torch.ones_like(tables[0])
    zeros = torch.zeros_like(tables[0])
    if model.config.model_type in ('gptj', 'codegen'):  # sine first
        return zeros, ones
    return ones, zeros


def reference_layer(
    model,
    index: int,
    x: Tensor,
    causal=False,
    rotary=False,
    padding: Tensor | None = None,
) -> Tensor:
    """Output of layer ``index`` of a ``random_model``."""
    layer = decoder_layers(model)[index]
    count = x.shape[1]
    takes = inspect.signature(layer.forward).parameters
    options = dict(alibi=None, shared_kv_states={})
    options['position_ids'] = torch.arange(count)[None]  # ministral3 scales far queries
    if 'position_embeddings' in takes:
        options['position_embeddings'] = rotary_tables(model, index, x, rotary)
    if 'position_bias' in takes:  # t5: left out, as rotary embedding is
        heads = model.config.num_attention_heads
        options['position_bias'] = torch.zeros(1, heads, count, count)
    options = {name: value for name, value in options.items() if name in takes}
    options['attention_mask'] = mask_of(model, index, x, causal, padding)
    out = layer(x, **options)
    if isinstance(out, tuple):
        return out[0]
    return out


NO_ROTARY = [v for v in FAMILIES if not takes_rotary(random_model(v))]

WITH_ROTARY = [v for v in FAMILIES if v not in NO_ROTARY]
