"""VideoMAE's and the paper's video models, reimplemented from their names alone.

Plain functional torch on a state dict with the published keys: it shares no code with
lm4ve, mmaction2 or transformers, so that equal logits are evidence.
"""

import math

import torch
import torch.nn.functional as F

from tests.helpers.image import released as image
from tests.helpers.image.released import write_llm  # noqa: F401
from tests.helpers.released import linear, norm, random

#: A tiny stand-in of ViT-S: 32 x 32 pixels, 16 frames, tubes of 2 x 16 x 16.
WIDTH = image.WIDTH
DEPTH = image.DEPTH
HEADS = image.HEADS
CLASSES = 6
PATCH = 16
SIZE = 32
TUBE = 2
FRAMES = 16
TOKENS = (SIZE // PATCH) ** 2 * FRAMES // TUBE


def trunk() -> dict:
    """The encoder that all of them share; there is no bias of the keys."""
    state = {
        'patch_embed.proj.weight': random(WIDTH, 3, TUBE, PATCH, PATCH, scale=0.02),
        'patch_embed.proj.bias': random(WIDTH),
    }
    state |= image.blocks()
    for i in range(DEPTH):
        at = f'blocks.{i}.attn'
        del state[f'{at}.qkv.bias']
        state[f'{at}.q_bias'] = random(WIDTH)
        state[f'{at}.v_bias'] = random(WIDTH)
    return state


def pretrained_state() -> dict:
    """What VideoMAE's pre-training writes."""
    state = {f'encoder.{name}': tensor for name, tensor in trunk().items()}
    state['encoder.norm.weight'] = random(WIDTH, offset=1.0)
    state['encoder.norm.bias'] = random(WIDTH)
    state['mask_token'] = random(1, 1, 8)
    state['encoder_to_decoder.weight'] = random(8, WIDTH)
    state['decoder.norm.weight'] = random(8)
    state['decoder.blocks.0.attn.qkv.weight'] = random(24, 8)
    state['decoder.head.bias'] = random(6)
    return state


def finetuned_state() -> dict:
    """What its fine-tuning writes."""
    state = trunk()
    normed = norm(state, 'fc_norm', torch.zeros(WIDTH))
    linear(state, 'head', normed, CLASSES)
    return state


def llama_state(layers: list) -> dict:
    """The paper's: the same, two mappers and LLaMA's layer (an fp32 copy)."""
    return image.llama_state(layers, finetuned_state)


def sinusoid(count: int, width: int) -> torch.Tensor:
    """VideoMAE's fixed position table, ``[count, width]``, entry by entry."""
    table = torch.zeros(count, width, dtype=torch.float64)
    for position in range(count):
        for j in range(width):
            angle = position / 10000 ** (2 * (j // 2) / width)
            wave = math.sin if j % 2 == 0 else math.cos
            table[position, j] = wave(angle)
    return table.float()


def logits(state: dict, clips: torch.Tensor) -> torch.Tensor:
    """``[B, 3, FRAMES, SIZE, SIZE] -> [B, CLASSES]``."""
    state = dict(state)
    for i in range(DEPTH):
        at = f'blocks.{i}.attn'
        biases = (state[f'{at}.q_bias'], torch.zeros(WIDTH), state[f'{at}.v_bias'])
        state[f'{at}.qkv.bias'] = torch.cat(biases)
    weight = state['patch_embed.proj.weight']
    bias = state['patch_embed.proj.bias']
    x = F.conv3d(clips, weight, bias, stride=(TUBE, PATCH, PATCH))
    x = x.flatten(2).transpose(1, 2) + sinusoid(TOKENS, WIDTH)
    x = image.llama(state, image.encode(state, x))
    x = norm(state, 'fc_norm', x.mean(1), 1e-6)
    return linear(state, 'head', x)
