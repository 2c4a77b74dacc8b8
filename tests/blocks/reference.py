"""``transformers``' own layers, called one at a time: the reference."""

import inspect

import torch
from torch import Tensor

from tests.helpers.families import decoder_layers


def mask_of(length: int, causal: bool, padding: Tensor | None) -> Tensor:
    """Additive mask ``[B or 1, 1, N, N]`` as eager attention takes it."""
    visible = torch.ones(1, 1, length, length, dtype=torch.bool)
    if causal:
        visible = visible.tril()
    if padding is not None:
        visible = visible & ~padding[:, None, None, :]
    lowest = torch.finfo(torch.float32).min
    return torch.zeros(visible.shape).masked_fill(~visible, lowest)


def takes_rotary(model) -> bool:
    """Whether the layers of a model take rotary tables."""
    signature = inspect.signature(decoder_layers(model)[0].forward)
    return 'position_embeddings' in signature.parameters


def rotary_tables(model, index: int, x: Tensor, rotary: bool):
    """cos and sin of one layer; of angle zero without rotary."""
    positions = torch.arange(x.shape[1])[None]
    args = (x, positions)
    if 'layer_type' in inspect.signature(model.rotary_emb.forward).parameters:
        args += (model.config.layer_types[index],)
    cos, sin = model.rotary_emb(*args)
    return (cos, sin) if rotary else (torch.ones_like(cos), torch.zeros_like(sin))


def reference_layer(
    model,
    index: int,
    x: Tensor,
    causal: bool = False,
    rotary: bool = False,
    padding: Tensor | None = None,
) -> Tensor:
    """Output of layer ``index`` of a ``random_model``."""
    layer = decoder_layers(model)[index]
    takes = inspect.signature(layer.forward).parameters
    options = dict(attention_mask=mask_of(x.shape[1], causal, padding))
    if 'position_embeddings' in takes:
        options.update(position_embeddings=rotary_tables(model, index, x, rotary))
    if 'alibi' in takes:
        options.update(alibi=None)
    out = layer(x, **options)
    return out[0] if isinstance(out, tuple) else out
