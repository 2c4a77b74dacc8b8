"""Time the neck, forward and backward, by each path, and check that all agree.

    python tools/benchmarks/block.py --dtypes float32 bfloat16 --out block.json

The reference is the plain block: every token, explicit softmax, fp32.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from common import DTYPES, in_rounds, llama, matmul_rate, middle, parse, ratio, report
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from lm4ve.cost.operations import FORMULAS
from lm4ve.necks import LLMBlockNeck


def plain_reference(neck: LLMBlockNeck, x, arch: dict):
    """Compute the whole neck in plain code: all tokens, explicit fp32 softmax."""
    layer = neck.block.layers[0]
    heads, eps = arch['num_attention_heads'], arch['rms_norm_eps']

    def norm(h, weight=None):
        return F.rms_norm(h, h.shape[-1:], weight, eps)

    def project(h, module):
        return F.linear(h, module.weight.float())

    h = F.linear(x, neck.mapper_in.weight)
    n = norm(h, layer.attention_norm.wrapped.weight.float())
    q, k, v = (
        project(n, p.wrapped).unflatten(-1, (heads, -1)).transpose(1, 2)
        for p in (layer.q_proj, layer.k_proj, layer.v_proj)
    )
    scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
    out = (torch.softmax(scores, dim=-1) @ v).transpose(1, 2).flatten(2)
    h = h + project(out, layer.o_proj.wrapped)
    n = norm(h, layer.mlp_norm.wrapped.weight.float())
    mlp = layer.mlp.wrapped
    gated = F.silu(project(n, mlp.gate_proj)) * project(n, mlp.up_proj)
    h = norm(h + project(gated, mlp.down_proj))
    return neck.norm(F.linear(h, neck.mapper_out.weight))


def gradients(neck, run, x, direction) -> dict:
    """Return the output and all gradients of one run."""
    neck.zero_grad()
    x = x.clone().requires_grad_()
    out = run(x)
    (out * direction).sum().backward()
    return dict(
        out=out.detach(), x=x.grad, **{n: p.grad for n, p in neck.named_parameters()}
    )


def worst(expected: dict, got: dict) -> float:
    """Return the largest relative error of output and gradients."""
    return max(((got[k] - v).norm() / v.norm()).item() for k, v in expected.items())


def make_paths(args, arch: dict, asked: slice) -> dict:
    """Return ``(name, dtype) -> (neck, method, queries)``; all necks have equal weights."""

    def neck_of(block, **options):
        neck = LLMBlockNeck(args.channels, block, **options)
        torch.manual_seed(0)
        neck.init_weights()
        return neck.to(args.device)

    paths = {}
    for dtype in args.dtypes:
        neck = neck_of(dict(type='LLMBlock', arch=arch, dtype=dtype))
        paths['all tokens', dtype] = neck, 'off', None
        paths['all tokens, fold', dtype] = neck, 'fold', None
        if args.compile:
            compiled = neck_of(neck.block)
            compiled.compile()
            paths['all tokens, fold, compiled', dtype] = compiled, 'fold', None
        paths['queries only', dtype] = neck, 'off', asked
        paths['queries only, fold', dtype] = neck, 'fold', asked
        paths['queries only, absorb', dtype] = neck, 'absorb', asked
    reference = neck_of(dict(type='LLMBlock', arch=arch))
    return {'reference': (reference, None, None), **paths}


def gmac_of_run(run: Callable[[], object]) -> float:
    """Count the multiply-accumulates of the products that a function runs, in 1e9.

    Attention has two products in the forward pass and four in the backward pass; the
    scores that fused kernels compute again are not counted.
    """
    backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    formulas = {
        **FORMULAS,
        backward: lambda _, q, k, v, *a, **b: 2 * sdpa_flop_count(q, k, v),
    }
    with FlopCounterMode(display=False, custom_mapping=formulas) as flops:
        run()
    return flops.get_total_flops() / 2e9


def main(argv=None) -> None:
    flags = {
        '--dtypes': dict(nargs='+', default=['float32', 'bfloat16'], choices=DTYPES),
        '--compile': dict(
            action='store_true', help='also torch.compile (a C++ compiler)'
        ),
    }
    args = parse(argv, __doc__, flags, batch=8, tokens=197, channels=384, queries=1)
    arch, asked = llama(args.width), slice(0, args.queries)
    paths = make_paths(args, arch, asked)
    reference, *_ = paths.pop('reference')
    x = torch.randn(args.batch, args.tokens, args.channels, device=args.device)
    direction = torch.randn(args.batch, args.queries, args.channels, device=args.device)
    tall = args.batch * args.tokens
    rates = {
        d: matmul_rate(args.device, tall, args.width, DTYPES[d]) for d in args.dtypes
    }

    def run_path(neck, method, queries, t):
        neck.low_rank = method
        out = neck(t, queries=queries)
        return out if queries else out[:, asked]

    def plain(t):
        return plain_reference(reference, t, arch)[:, asked]

    runs = {
        key: partial(gradients, path[0], partial(run_path, *path), x, direction)
        for key, path in paths.items()
    }
    run_reference = partial(gradients, reference, plain, x, direction)
    expected = run_reference()
    errors = {key: worst(expected, run()) for key, run in runs.items()}
    times = in_rounds({'reference': run_reference, **runs}, args)

    def row(path, dtype, key, **more):
        speedup = ratio(times['reference'], times[key])
        return dict(
            path=path, dtype=dtype, **middle(times[key]), speedup=speedup, **more
        )

    rows = [row('plain reference, all tokens', 'float32', 'reference', error=0.0)]
    for key in paths:
        # Compiled code hides its products; they are those of the same path without.
        counted = gmac_of_run(runs[key[0].removesuffix(', compiled'), key[1]])
        own = row(*key, key, error=errors[key], GMAC=counted)
        own['of peak'] = own['seconds'] * rates[key[1]] / (counted * 1e9)
        rows.append(own)
    title = f'Neck at D={args.width}, C={args.channels}, {args.batch} x {args.tokens} tokens, '
    note = f'Medians of {args.repeats} rounds; speedup: medians of ratios within a round. error: '
    note += 'largest relative error of output and gradients against the reference.\n'
    note += (
        'GMAC: of the products of both passes that ran; of peak: against GMAC at the '
    )
    note += f'best rate of one [{tall}, {args.width}] x [{args.width}, {args.width}] product.'
    report(f'{title}{args.queries} read: forward + backward', rows, args, note)


if __name__ == '__main__':
    main()
