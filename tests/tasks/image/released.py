"""The paper's released image model, reimplemented from its names alone.

Plain functional torch on a state dict with the released keys: it shares no code with lm4ve,
mmpretrain or transformers, so that equal logits are evidence.
"""

import argparse
import json
from pathlib import Path

import torch
import torch.nn.functional as F

#: A tiny stand-in of ViT-S and LLaMA-7B.
WIDTH, DEPTH, HEADS, CLASSES, PATCH, SIZE = 24, 2, 3, 7, 4, 16
DIM, LLM_HEADS, LLM_LAYERS, HIDDEN, EPS = 32, 4, 3, 48, 1e-5


def random(*shape: int, scale: float = 0.2, offset: float = 0.0) -> torch.Tensor:
    return torch.randn(*shape) * scale + offset


def vit_state() -> dict:
    """A plain ViT by its released names, random everywhere."""
    tokens = (SIZE // PATCH) ** 2 + 1
    state = {
        'cls_token': random(1, 1, WIDTH),
        'pos_embed': random(1, tokens, WIDTH),
        'patch_embed.proj.weight': random(WIDTH, 3, PATCH, PATCH),
        'patch_embed.proj.bias': random(WIDTH),
        'norm.weight': random(WIDTH, offset=1.0),
        'norm.bias': random(WIDTH),
        'head.weight': random(CLASSES, WIDTH),
        'head.bias': random(CLASSES),
    }
    return state | blocks()


def blocks() -> dict:
    """The layers of a ViT."""
    state, linears = {}, {'attn.qkv': (3, 1), 'attn.proj': (1, 1), 'mlp.fc1': (4, 1)}
    for at in (f'blocks.{i}' for i in range(DEPTH)):
        for name, (rows, columns) in dict(linears, **{'mlp.fc2': (1, 4)}).items():
            state[f'{at}.{name}.weight'] = random(rows * WIDTH, columns * WIDTH)
            state[f'{at}.{name}.bias'] = random(rows * WIDTH)
        for name in ('norm1', 'norm2'):
            state[f'{at}.{name}.weight'] = random(WIDTH, offset=1.0)
            state[f'{at}.{name}.bias'] = random(WIDTH)
    return state


def llama_layer() -> dict:
    """One layer by Meta's names, in fp16 as Meta publishes it."""
    layer = {f'attention.{n}.weight': random(DIM, DIM) for n in ('wq', 'wk', 'wv', 'wo')}
    for n, shape in enumerate(((HIDDEN, DIM), (DIM, HIDDEN), (HIDDEN, DIM)), 1):
        layer[f'feed_forward.w{n}.weight'] = random(*shape)
    layer |= {f'{n}_norm.weight': random(DIM, offset=1.0) for n in ('attention', 'ffn')}
    return {k: v.half() for k, v in layer.items()}


def write_meta(folder: Path, layers: list) -> str:
    """Write a language model as Meta publishes it; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    shape = dict(dim=DIM, n_heads=LLM_HEADS, n_layers=len(layers), norm_eps=EPS)
    (folder / 'params.json').write_text(json.dumps(dict(shape, multiple_of=16, vocab_size=-1)))
    state = {f'layers.{i}.{k}': v for i, layer in enumerate(layers) for k, v in layer.items()}
    for i in range(len(layers)):
        state[f'layers.{i}.attention.inner_attention.rope.freqs'] = random(4)
    state['norm.weight'] = random(DIM, offset=1.0)
    state['tok_embeddings.weight'] = random(11, DIM)
    state['output.weight'] = random(11, DIM)
    torch.save(state, folder / 'consolidated.00.pth')
    return str(folder)


def llama_state(layers: list, plain=vit_state) -> dict:
    """A ViT-LLaMA by its released names; the block is an fp32 copy."""
    state = plain()
    state['llama_dim_mapper1.weight'] = random(DIM, WIDTH)
    state['llama_dim_mapper2.weight'] = random(WIDTH, DIM)
    for i, layer in enumerate(layers):
        state.update({f'llama.layers.{i}.{k}': v.float() for k, v in layer.items()})
    state['llama.norm.weight'] = torch.ones(DIM)
    return state


def write_released(path: Path, state: dict, **extra) -> str:
    """Write it as DeiT's training script does."""
    args = argparse.Namespace(model='vit_tiny', lr=1e-3, opt_betas=None)
    optimizer = dict(state={}, param_groups=[dict(lr=1e-5)])
    torch.save(dict(model=state, epoch=299, optimizer=optimizer, args=args, **extra), path)
    return str(path)


def attend(q, k, v):
    scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


def rms(x, weight=None):
    x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS)
    return x if weight is None else x * weight


def linear(state, x, name):
    return F.linear(x, state[f'{name}.weight'], state.get(f'{name}.bias'))


def norm(state, x, name):
    return F.layer_norm(x, x.shape[-1:], state[f'{name}.weight'], state[f'{name}.bias'], 1e-6)


def llama(state, x):
    """Both mappers and the layers between them; x as it is without them."""
    if 'llama_dim_mapper1.weight' not in state:
        return x
    x = linear(state, x, 'llama_dim_mapper1')
    for i in range(sum(k.endswith('.ffn_norm.weight') for k in state)):
        at = f'llama.layers.{i}'
        h = rms(x, state[f'{at}.attention_norm.weight'])
        q, k, v = (
            linear(state, h, f'{at}.attention.w{n}').unflatten(-1, (LLM_HEADS, -1)).transpose(1, 2)
            for n in 'qkv'
        )
        x = x + linear(state, attend(q, k, v), f'{at}.attention.wo')
        h = rms(x, state[f'{at}.ffn_norm.weight'])
        gate, up = (linear(state, h, f'{at}.feed_forward.w{n}') for n in (1, 3))
        x = x + linear(state, F.silu(gate) * up, f'{at}.feed_forward.w2')
    return linear(state, rms(x), 'llama_dim_mapper2')


def encode(state, x):
    for at in (f'blocks.{i}' for i in range(DEPTH)):
        qkv = linear(state, norm(state, x, f'{at}.norm1'), f'{at}.attn.qkv')
        qkv = qkv.unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        x = x + linear(state, attend(*qkv), f'{at}.attn.proj')
        h = F.gelu(linear(state, norm(state, x, f'{at}.norm2'), f'{at}.mlp.fc1'))
        x = x + linear(state, h, f'{at}.mlp.fc2')
    return x


def logits(state: dict, images: torch.Tensor) -> torch.Tensor:
    """Compute the released model: ``[B, 3, SIZE, SIZE] -> [B, CLASSES]``."""
    weight, bias = (state[f'patch_embed.proj.{n}'] for n in ('weight', 'bias'))
    x = F.conv2d(images, weight, bias, stride=PATCH).flatten(2).transpose(1, 2)
    x = torch.cat((state['cls_token'].expand(len(x), -1, -1), x), dim=1) + state['pos_embed']
    x = encode(state, x)
    return linear(state, norm(state, llama(state, x), 'norm')[:, 0], 'head')
