"""Time the neck, forward and backward, by each path, and check that all agree.

    python tools/benchmarks/block.py --dtypes float32 bfloat16 --out block.json

The reference is the plain block: every token, explicit softmax, fp32.
"""

from statistics import median

import torch
import torch.nn.functional as F
from common import DTYPES, in_rounds, matmul_rate, middle, parser, ratio, report, seconds
from products import ceilings, count_gmac, product_runs, record
from torch import nn

import lm4ve  # noqa: F401
from lm4ve.blocks.low_rank import count_macs, sizes_of
from lm4ve.necks import LLMBlockNeck

LLAMA_7B = dict(
    model_type='llama',
    hidden_size=4096,
    intermediate_size=11008,
    num_attention_heads=32,
    num_hidden_layers=1,
    rms_norm_eps=1e-6,
    vocab_size=8,
)


def rms_norm(x, weight, eps):
    return weight * (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps))


def plain_reference(neck: LLMBlockNeck, x, arch: dict):
    """The whole neck in plain code: all tokens, explicit fp32 softmax."""
    layer = neck.block.layers[0]
    weights = {
        name: getattr(layer, name).wrapped.weight.float()
        for name in ('q_proj', 'k_proj', 'v_proj', 'o_proj', 'attention_norm', 'mlp_norm')
    }
    mlp = layer.mlp.wrapped
    heads, eps = arch['num_attention_heads'], arch['rms_norm_eps']
    h = F.linear(x, neck.mapper_in.weight)
    n = rms_norm(h, weights['attention_norm'], eps)

    def split(y):
        return y.unflatten(-1, (heads, -1)).transpose(1, 2)

    q, k, v = (split(F.linear(n, weights[f'{p}_proj'])) for p in 'qkv')
    scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
    out = (torch.softmax(scores, dim=-1) @ v).transpose(1, 2).flatten(2)
    h = h + F.linear(out, weights['o_proj'])
    n = rms_norm(h, weights['mlp_norm'], eps)
    gate, up, down = (p.weight.float() for p in (mlp.gate_proj, mlp.up_proj, mlp.down_proj))
    h = h + F.linear(F.silu(F.linear(n, gate)) * F.linear(n, up), down)
    h = rms_norm(h, torch.ones_like(weights['mlp_norm']), eps)
    return neck.norm(F.linear(h, neck.mapper_out.weight))


def gradients(neck, run, x, direction) -> dict:
    """Output and all gradients of one run."""
    neck.zero_grad()
    x = x.clone().requires_grad_()
    out = run(x)
    (out * direction).sum().backward()
    return dict(out=out.detach(), x=x.grad, **{n: p.grad for n, p in neck.named_parameters()})


def worst(expected: dict, got: dict) -> float:
    """The largest relative error of output and gradients."""
    return max(((got[k] - v).norm() / v.norm()).item() for k, v in expected.items())


def macs_of_path(neck, x, queries, method, arch) -> int:
    """Multiply-accumulates of a path, forward and backward."""
    s = sizes_of(neck.block.layers[0], x, queries)
    asked = s.batch * s.queries
    # Frozen: output projection and MLP; trained: the second mapper.
    rest = 2 * (s.width**2 + 3 * s.width * arch['intermediate_size'])
    return count_macs(s)[method] + asked * (rest + 3 * s.channels * s.width)


def make_necks(args, arch: dict) -> dict:
    """Build the neck in each type, 'reference' in fp32, with equal weights."""
    necks, state = {}, None
    for name in ('reference', *args.dtypes):
        dtype = 'float32' if name == 'reference' else name
        neck = LLMBlockNeck(args.channels, dict(type='LLMBlock', arch=arch, dtype=dtype))
        if state is None:
            nn.init.trunc_normal_(neck.mapper_in.weight, std=0.02)
            nn.init.trunc_normal_(neck.mapper_out.weight, std=0.02)
            state = {k: v for k, v in neck.state_dict().items() if 'llm' not in k}
        neck.load_state_dict(state, strict=False)
        necks[name] = neck.to(args.device)
        if args.compile and name != 'reference':
            compiled = LLMBlockNeck(args.channels, neck.block, compile=True)
            compiled.load_state_dict(state, strict=False)
            necks[name, 'compiled'] = compiled.to(args.device)
    return necks


def make_paths(necks: dict, dtypes, asked: slice) -> dict:
    """``(dtype, name) -> (neck, method, queries, function of x)``."""
    paths = {}
    for dtype in dtypes:
        for name, method, queries in (
            ('all tokens', 'off', None),
            ('all tokens, fold', 'fold', None),
            ('all tokens, fold, compiled', 'fold', None),
            ('queries only', 'off', asked),
            ('queries only, fold', 'fold', asked),
            ('queries only, absorb', 'absorb', asked),
        ):
            neck = necks[dtype]
            if 'compiled' in name:
                neck = necks.get((dtype, 'compiled'))
                if neck is None:
                    continue

            def run(t, neck=neck, method=method, queries=queries):
                neck.low_rank = method
                out = neck(t, queries=queries)
                return out if queries is not None else out[:, asked]

            paths[dtype, name] = neck, method, queries, run
    return paths


def main() -> None:
    p = parser(__doc__)
    p.add_argument('--dtypes', nargs='+', default=['float32', 'bfloat16'])
    p.add_argument('--batch', type=int, default=8)
    p.add_argument('--tokens', type=int, default=197)
    p.add_argument('--channels', type=int, default=384)
    p.add_argument(
        '--queries', type=int, default=1, help='tokens that are read; default 1, the class token'
    )
    p.add_argument(
        '--width', type=int, default=4096, help="the language model's width; smaller for a trial"
    )
    p.add_argument(
        '--compile',
        action='store_true',
        help='also through torch.compile (on a CPU it needs a C++ compiler)',
    )
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    arch = dict(LLAMA_7B, hidden_size=args.width, intermediate_size=args.width * 11008 // 4096)
    torch.manual_seed(0)
    x = torch.randn(args.batch, args.tokens, args.channels, device=args.device)
    direction = torch.randn(args.batch, args.queries, args.channels, device=args.device)
    asked = slice(0, args.queries)
    necks = make_necks(args, arch)
    paths = make_paths(necks, args.dtypes, asked)
    rates = {
        d: matmul_rate(args.device, args.batch * args.tokens, args.width, DTYPES[d])
        for d in args.dtypes
    }

    def reference():
        return gradients(
            necks['reference'],
            lambda t: plain_reference(necks['reference'], t, arch)[:, asked],
            x,
            direction,
        )

    runs = {
        k: lambda n=neck, r=run: gradients(n, r, x, direction)
        for k, (neck, _, _, run) in paths.items()
    }
    expected = reference()
    errors = {k: worst(expected, run()) for k, run in runs.items()}
    # What compiled code runs is not seen: the same products as without.
    products = {k: record(runs[k[0], k[1].removesuffix(', compiled')]) for k in runs}
    timed = in_rounds(
        {
            'reference': reference,
            'backbone': backbone_step(args),
            **runs,
            **product_runs({p for found in products.values() for p in found}, args.device),
        },
        args.device,
        args.repeats,
        args.warmup,
    )

    base = seconds(timed['reference'])
    rows = [
        dict(
            path='plain reference, all tokens',
            dtype='float32',
            speedup=1.0,
            error=0.0,
            **middle(timed['reference']),
        )
    ]
    times = {k: seconds(v) for k, v in timed.items()}
    for key, (neck, method, queries, _) in paths.items():
        macs = macs_of_path(neck, x, queries, method, arch)
        ceiling = ceilings(products[key], times)
        own = middle(timed[key])
        rows.append(
            dict(
                path=key[1],
                dtype=key[0],
                speedup=ratio(base, times[key]),
                error=errors[key],
                GMAC=macs / 1e9,
                run=count_gmac(products[key]),
                ceiling=median(ceiling),
                **{
                    'of ceiling': ratio(times[key], ceiling),
                    'of peak': own['seconds'] * rates[key[0]] / macs,
                },
                **own,
            )
        )
    rows.append(
        dict(
            path='(ViT-S without the block)',
            dtype='float32',
            speedup=ratio(base, times['backbone']),
            **middle(timed['backbone']),
        )
    )
    report(
        f'Neck at D={args.width}, C={args.channels}, {args.batch} x '
        f'{args.tokens} tokens, {args.queries} read: forward + backward',
        rows,
        (
            'path',
            'dtype',
            'seconds',
            'speedup',
            'error',
            'GMAC',
            'run',
            'ceiling',
            'of ceiling',
            'of peak',
            'peak_mb',
        ),
        args,
        [
            f'Medians of {args.repeats} rounds; speedup and of ceiling: medians of '
            'ratios within a round. error: largest relative error of output and '
            'gradients against the reference.',
            'GMAC: of forward and backward, counted; run: of the products that ran; '
            'ceiling: the seconds that these take, each by itself with its shapes, '
            'types and layouts; of peak: against the counted GMAC at the best rate '
            f'of one [{args.batch * args.tokens}, {args.width}] x [{args.width}, '
            f'{args.width}] product.',
        ],
    )


def backbone_step(args):
    """The encoder that the block is added to: mmpretrain's ViT-S."""
    from mmpretrain.models import VisionTransformer

    vit = VisionTransformer('deit-small', img_size=224, patch_size=16)
    vit.to(args.device)
    images = torch.randn(args.batch, 3, 224, 224, device=args.device)

    def step():
        vit.zero_grad()
        vit(images)[0].sum().backward()

    return step


if __name__ == '__main__':
    main()
