"""The paper's released image model, reimplemented from its names alone.

Plain functional torch on a state dict with the released keys: it shares no code with
lm4ve, mmpretrain or transformers, so that equal logits are evidence.
"""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F

from tests.helpers.families import write_meta
from tests.helpers.released import attention, linear, norm, random, tensor

#: A tiny stand-in of ViT-S and LLaMA-7B.
WIDTH = 24
DEPTH = 2
HEADS = 3
CLASSES = 7
PATCH = 4
SIZE = 16
DIM = 32
LLM_HEADS = 4
HIDDEN = 48
EPS = 1e-5


def vit_state() -> dict:
    """A plain ViT by its released names, random everywhere."""
    state = {}
    logits(state, torch.zeros(1, 3, SIZE, SIZE))
    return state


def blocks() -> dict:
    """The layers of a ViT."""
    state = {}
    encode(state, torch.zeros(1, 2, WIDTH))
    return state


def write_llm(folder: Path, seed: int = 0, **sizes) -> tuple[str, list[dict]]:
    """Write a language model in fp16 as Meta does; return the folder and its three layers."""
    sizes['num_hidden_layers'] = 3
    write_meta(folder, seed=seed, dtype=torch.float16, sizes=sizes)
    state = torch.load(folder / 'consolidated.00.pth', weights_only=True)
    layers = [{}, {}, {}]
    for name, weight in state.items():
        if name.startswith('layers.') and 'rope' not in name:
            _, number, part = name.split('.', maxsplit=2)
            layers[int(number)][part] = weight
    return str(folder), layers


def llama_state(layers: list, plain=vit_state, width: int = WIDTH) -> dict:
    """A ViT-LLaMA by its released names; the block is an fp32 copy."""
    state = plain()
    state['llama_dim_mapper1.weight'] = random(DIM, width)
    state['llama_dim_mapper2.weight'] = random(width, DIM)
    for i, layer in enumerate(layers):
        for name, weight in layer.items():
            state[f'llama.layers.{i}.{name}'] = weight.float()
    state['llama.norm.weight'] = torch.ones(DIM)
    return state


def released(state: dict, **extra) -> dict:
    """Return the content of the files that DeiT's training script writes."""
    args = argparse.Namespace(model='vit_tiny', lr=1e-3, opt_betas=None)
    optimizer = dict(state={}, param_groups=[dict(lr=1e-5)])
    return dict(model=state, epoch=299, optimizer=optimizer, args=args, **extra)


def rms(x, weight=None):
    x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS)
    if weight is None:
        return x
    return x * weight


def llama(state, x):
    """Both mappers and the layers between them; x as it is without them."""
    if 'llama_dim_mapper1.weight' not in state:
        return x
    x = linear(state, 'llama_dim_mapper1', x, bias=False)
    layer = 0
    while f'llama.layers.{layer}.ffn_norm.weight' in state:
        x = llama_layer(state, f'llama.layers.{layer}', x)
        layer += 1
    return linear(state, 'llama_dim_mapper2', rms(x), bias=False)


def llama_layer(state, at, x):
    h = rms(x, state[f'{at}.attention_norm.weight'])
    q = linear(state, f'{at}.attention.wq', h, bias=False)
    k = linear(state, f'{at}.attention.wk', h, bias=False)
    v = linear(state, f'{at}.attention.wv', h, bias=False)
    # MedVisionLlama repeats the few heads of keys and values as a whole.
    repeats = q.shape[-1] // k.shape[-1]
    h = attention(q, k.repeat(1, 1, repeats), v.repeat(1, 1, repeats), LLM_HEADS)
    x = x + linear(state, f'{at}.attention.wo', h, bias=False)
    h = rms(x, state[f'{at}.ffn_norm.weight'])
    gate = linear(state, f'{at}.feed_forward.w1', h, bias=False)
    up = linear(state, f'{at}.feed_forward.w3', h, bias=False)
    return x + linear(state, f'{at}.feed_forward.w2', F.silu(gate) * up, bias=False)


def encode(state, x):
    for i in range(DEPTH):
        at = f'blocks.{i}'
        h = norm(state, f'{at}.norm1', x, 1e-6)
        q, k, v = linear(state, f'{at}.attn.qkv', h, 3 * WIDTH).chunk(3, -1)
        h = attention(q, k, v, HEADS)
        x = x + linear(state, f'{at}.attn.proj', h, WIDTH)
        h = norm(state, f'{at}.norm2', x, 1e-6)
        h = F.gelu(linear(state, f'{at}.mlp.fc1', h, 4 * WIDTH))
        x = x + linear(state, f'{at}.mlp.fc2', h, WIDTH)
    return x


def logits(state: dict, images: torch.Tensor) -> torch.Tensor:
    """Compute the released model: ``[B, 3, SIZE, SIZE] -> [B, CLASSES]``."""
    weight = tensor(state, 'patch_embed.proj.weight', WIDTH, 3, PATCH, PATCH)
    bias = tensor(state, 'patch_embed.proj.bias', WIDTH)
    x = F.conv2d(images, weight, bias, stride=PATCH).flatten(2).transpose(1, 2)
    class_token = tensor(state, 'cls_token', 1, 1, WIDTH).expand(len(x), -1, -1)
    x = torch.cat((class_token, x), dim=1)
    x = x + tensor(state, 'pos_embed', *x[:1].shape)
    x = llama(state, encode(state, x))
    x = norm(state, 'norm', x, 1e-6)
    return linear(state, 'head', x[:, 0], CLASSES)
