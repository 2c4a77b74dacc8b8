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
WIDTH, DEPTH, HEADS, CLASSES, PATCH, SIZE = 24, 2, 3, 7, 4, 16
DIM, LLM_HEADS, HIDDEN, EPS = 32, 4, 48, 1e-5


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


def write_llm(folder: Path, seed: int = 0) -> tuple[str, list[dict]]:
    """Write a language model in fp16 as Meta does; return the folder and its three layers."""
    write_meta(folder, seed=seed, dtype=torch.float16, sizes=dict(num_hidden_layers=3))
    state, layers = (
        torch.load(folder / 'consolidated.00.pth', weights_only=True),
        [{}, {}, {}],
    )
    for name, weight in state.items():
        if name.startswith('layers.') and 'rope' not in name:
            layers[int(name[7])][name[9:]] = weight
    return str(folder), layers


def llama_state(layers: list, plain=vit_state, width: int = WIDTH) -> dict:
    """A ViT-LLaMA by its released names; the block is an fp32 copy."""
    state = plain()
    state['llama_dim_mapper1.weight'] = random(DIM, width)
    state['llama_dim_mapper2.weight'] = random(width, DIM)
    for i, layer in enumerate(layers):
        state.update({f'llama.layers.{i}.{k}': v.float() for k, v in layer.items()})
    state['llama.norm.weight'] = torch.ones(DIM)
    return state


def released(state: dict, **extra) -> dict:
    """Return the content of the files that DeiT's training script writes."""
    args = argparse.Namespace(model='vit_tiny', lr=1e-3, opt_betas=None)
    optimizer = dict(state={}, param_groups=[dict(lr=1e-5)])
    return dict(model=state, epoch=299, optimizer=optimizer, args=args, **extra)


def rms(x, weight=None):
    x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS)
    return x if weight is None else x * weight


def llama(state, x):
    """Both mappers and the layers between them; x as it is without them."""
    if 'llama_dim_mapper1.weight' not in state:
        return x
    x = linear(state, 'llama_dim_mapper1', x, bias=False)
    for i in range(sum(k.endswith('.ffn_norm.weight') for k in state)):
        at = f'llama.layers.{i}'
        h = rms(x, state[f'{at}.attention_norm.weight'])
        qkv = (linear(state, f'{at}.attention.w{n}', h, bias=False) for n in 'qkv')
        x = x + linear(
            state, f'{at}.attention.wo', attention(*qkv, LLM_HEADS), bias=False
        )
        h = rms(x, state[f'{at}.ffn_norm.weight'])
        gate, up = (
            linear(state, f'{at}.feed_forward.w{n}', h, bias=False) for n in (1, 3)
        )
        x = x + linear(state, f'{at}.feed_forward.w2', F.silu(gate) * up, bias=False)
    return linear(state, 'llama_dim_mapper2', rms(x), bias=False)


def encode(state, x):
    for at in (f'blocks.{i}' for i in range(DEPTH)):
        qkv = linear(
            state, f'{at}.attn.qkv', norm(state, f'{at}.norm1', x, 1e-6), 3 * WIDTH
        )
        found = attention(*qkv.chunk(3, -1), HEADS)
        x = x + linear(state, f'{at}.attn.proj', found, WIDTH)
        h = F.gelu(
            linear(
                state, f'{at}.mlp.fc1', norm(state, f'{at}.norm2', x, 1e-6), 4 * WIDTH
            )
        )
        x = x + linear(state, f'{at}.mlp.fc2', h, WIDTH)
    return x


def logits(state: dict, images: torch.Tensor) -> torch.Tensor:
    """Compute the released model: ``[B, 3, SIZE, SIZE] -> [B, CLASSES]``."""
    weight = tensor(state, 'patch_embed.proj.weight', WIDTH, 3, PATCH, PATCH)
    bias = tensor(state, 'patch_embed.proj.bias', WIDTH)
    x = F.conv2d(images, weight, bias, stride=PATCH).flatten(2).transpose(1, 2)
    x = torch.cat(
        (tensor(state, 'cls_token', 1, 1, WIDTH).expand(len(x), -1, -1), x), dim=1
    )
    x = encode(state, x + tensor(state, 'pos_embed', *x[:1].shape))
    return linear(
        state, 'head', norm(state, 'norm', llama(state, x), 1e-6)[:, 0], CLASSES
    )
