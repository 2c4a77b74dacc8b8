"""Random combinations of options give what the parts give one after the other, or are refused."""

import random
from functools import cache

import pytest
import torch

from lm4ve.blocks import LLMBlock
from lm4ve.errors import UserError
from lm4ve.necks import LLMBlockNeck
from tests.helpers.families import FAMILIES

C, FLAG = 8, (False, True)
BLOCK = dict(
    variant='llama-gqa mistral gemma2 gpt_neo llama4_text modernbert gpt_oss t5'.split(),
    layers=((0,), (1,), (0, 1)),
    **dict(causal=FLAG, window=FLAG, rotary=FLAG, final_norm=FLAG, trainable=('none', 'all')),
)
NECK = dict(
    residual=('none', 'inner', 'outer', 'both'),
    out_type=('raw', 'cls_token', 'avg_featmap'),
    low_rank=('auto', 'fold', 'absorb', 'off'),
    norm_cfg=(None, dict(type='LN', eps=1e-3)),
    layout=(None, None, *'BNC NBC BCN BCHW BHWC BCTHW BTHWC BTCHW HWBC'.split()),
    **dict(num_extra_tokens=(0, 1), with_cp=FLAG, keep_others=FLAG, index=(0, -1)),
    norm_first=FLAG,
)
QUERIES = (None, None, slice(1, 4), slice(None, None, 2), torch.tensor([[0, 5], [3, 3]]))


@cache
def block_of(**options) -> LLMBlock:
    arch = dict(FAMILIES[options.pop('variant')], initializer_range=0.3)
    return LLMBlock(arch=arch, **options)


def chosen(x, queries):
    if isinstance(queries, torch.Tensor):
        return torch.stack([tokens[i] for tokens, i in zip(x, queries, strict=True)])
    return x if queries is None else x[:, queries]


def by_parts(neck, x, padding, queries):
    """The neck's tokens, ``[B, N, C]`` or ``[B, C]``, with every token computed."""
    hidden = neck.mapper_in(x)
    out = neck.block(hidden, padding) + hidden * (neck.residual in ('inner', 'both'))
    out = neck.mapper_out(out) + x * (neck.residual in ('outer', 'both'))
    norm = (lambda x: x) if neck.norm is None else neck.norm
    if neck.out_type == 'avg_featmap':
        out = norm(out) if neck.norm_first else out
        kept = torch.ones(2, 6, 1) if padding is None else 1.0 - padding[..., None].float()
        kept[:, : neck.num_extra_tokens] = 0
        out = (out * kept).sum(1) / kept.sum(1)
    out = out if neck.norm_first and neck.out_type == 'avg_featmap' else norm(out)
    if neck.out_type == 'cls_token':
        return out[:, 0]
    return chosen(out, queries)


@pytest.mark.parametrize('seed', range(300))
def test_a_combination_equals_its_parts_or_is_refused(seed):
    draw = random.Random(seed)
    torch.manual_seed(seed)
    block = {k: draw.choice(v) for k, v in BLOCK.items()}
    options = {k: draw.choice(v) for k, v in NECK.items()}
    x, queries, padding = torch.randn(2, 6, C).requires_grad_(), draw.choice(QUERIES), None
    if draw.random() < 0.5:
        padding = torch.tensor([[False] * 6, [False] * 4 + [True] * 2])
    letters, sizes = options['layout'] or 'BNC', dict(N=6, T=1, H=2, W=3)
    dims = ['B', *(n for n in letters if n not in 'BC'), 'C']
    feats = x.view(2, *(sizes[n] for n in dims[1:-1]), C).permute([dims.index(n) for n in letters])
    try:
        neck = LLMBlockNeck(C, block_of(**block), **options)
        out = neck([feats] if options['keep_others'] else feats, padding, queries)
    except UserError:
        return
    out = out[0] if options['keep_others'] else out
    if out.dim() > 2:
        out = out.permute([letters.index(n) for n in dims]).flatten(1, -2)
    # What comes of padding means nothing.
    ignored = torch.zeros(2, 6, 1).bool() if padding is None else padding[..., None]
    ignored = chosen(ignored, queries)[:, : out.shape[1]] if out.dim() > 2 else torch.tensor(False)
    direction, found = torch.randn(out.shape).masked_fill(ignored, 0), []
    for result in (out, by_parts(neck, x, padding, queries)):
        grads = torch.autograd.grad(
            (result * direction).sum(), [x, *neck.parameters()], allow_unused=True
        )
        found.append([result * (direction != 0), *grads])
    for a, b in zip(*found, strict=True):
        a, b = (torch.zeros(1) if t is None else t for t in (a, b))  # a bias of keys
        assert (a - b).norm() <= 1e-4 * b.norm().clamp_min(1)
