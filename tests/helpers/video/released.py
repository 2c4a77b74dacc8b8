"""VideoMAE's and the paper's video models, reimplemented from their names alone.

Plain functional torch on a state dict with the published keys: it shares no code with
lm4ve, mmaction2 or transformers, so that equal logits are evidence.
"""

import numpy as np
import torch
import torch.nn.functional as F

from tests.helpers.image import released as image
from tests.helpers.image.released import random, write_llm  # noqa: F401

#: A tiny stand-in of ViT-S: 32 x 32 pixels, 16 frames, tubes of 2 x 16 x 16.
WIDTH, DEPTH, HEADS, CLASSES = image.WIDTH, image.DEPTH, image.HEADS, 6
PATCH, SIZE, TUBE, FRAMES = 16, 32, 2, 16
TOKENS = (SIZE // PATCH) ** 2 * FRAMES // TUBE


def trunk() -> dict:
    """The encoder that all of them share; there is no bias of the keys."""
    state = {
        'patch_embed.proj.weight': random(WIDTH, 3, TUBE, PATCH, PATCH, scale=0.02),
        'patch_embed.proj.bias': random(WIDTH),
    }
    state |= image.blocks()
    for at in (f'blocks.{i}.attn' for i in range(DEPTH)):
        del state[f'{at}.qkv.bias']
        state |= {f'{at}.{name}_bias': random(WIDTH) for name in 'qv'}
    return state


def pretrained_state() -> dict:
    """What VideoMAE's pre-training writes."""
    state = {f'encoder.{k}': v for k, v in trunk().items()}
    sizes = {
        'encoder.norm.weight': WIDTH,
        'encoder.norm.bias': WIDTH,
        'mask_token': (1, 1, 8),
    }
    sizes |= {'encoder_to_decoder.weight': (8, WIDTH), 'decoder.norm.weight': 8}
    sizes |= {'decoder.blocks.0.attn.qkv.weight': (24, 8), 'decoder.head.bias': 6}
    for name, size in sizes.items():
        state[name] = random(
            *np.atleast_1d(size), offset=float(name == 'encoder.norm.weight')
        )
    return state


def finetuned_state() -> dict:
    """What its fine-tuning writes."""
    state = trunk()
    image.linear(
        state, 'head', image.norm(state, 'fc_norm', torch.zeros(WIDTH)), CLASSES
    )
    return state


def llama_state(layers: list) -> dict:
    """The paper's: the same, two mappers and LLaMA's layer (an fp32 copy)."""
    return image.llama_state(layers, finetuned_state)


def sinusoid(count: int, width: int) -> torch.Tensor:
    """VideoMAE's fixed position table, ``[count, width]``, entry by entry."""
    table = torch.zeros(count, width, dtype=torch.float64)
    for position in range(count):
        for j in range(width):
            angle = torch.tensor(
                position / 10000 ** (2 * (j // 2) / width), dtype=torch.float64
            )
            table[position, j] = angle.cos() if j % 2 else angle.sin()
    return table.float()


def logits(state: dict, clips: torch.Tensor) -> torch.Tensor:
    """``[B, 3, FRAMES, SIZE, SIZE] -> [B, CLASSES]``."""

    weight, bias = (state[f'patch_embed.proj.{n}'] for n in ('weight', 'bias'))
    x = (
        F.conv3d(clips, weight, bias, stride=(TUBE, PATCH, PATCH))
        .flatten(2)
        .transpose(1, 2)
    )
    x = x + sinusoid(TOKENS, WIDTH)
    for at in (f'blocks.{i}.attn' for i in range(DEPTH)):
        bias = state[f'{at}.q_bias'], torch.zeros(WIDTH), state[f'{at}.v_bias']
        state = state | {f'{at}.qkv.bias': torch.cat(bias)}
    x = image.encode(state, x)
    x = image.norm(state, 'fc_norm', image.llama(state, x).mean(1), 1e-6)
    return image.linear(state, 'head', x)
