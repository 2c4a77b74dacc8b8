"""Time the neck, forward and backward, by each path, and check that all agree.

    python tools/benchmarks/block.py --dtypes float32 bfloat16 --out block.json

The reference is the plain block: every token, explicit softmax, fp32.
"""
import torch
import torch.nn.functional as F
from common import DTYPES, Timer, matmul_rate, parser, report
from products import count_gmac, record, time_products
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
    vocab_size=8)


def rms_norm(x, weight, eps):
    return weight * (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps))


def plain_reference(neck: LLMBlockNeck, x, arch: dict):
    """The whole neck in plain code: all tokens, explicit fp32 softmax."""
    layer = neck.block.layers[0]
    weights = {
        name: getattr(layer, name).wrapped.weight.float()
        for name in ('q_proj', 'k_proj', 'v_proj', 'o_proj', 'attention_norm',
                     'mlp_norm')
    }
    mlp = layer.mlp.wrapped
    heads, eps = arch['num_attention_heads'], arch['rms_norm_eps']
    h = F.linear(x, neck.mapper_in.weight)
    n = rms_norm(h, weights['attention_norm'], eps)

    def split(y):
        return y.unflatten(-1, (heads, -1)).transpose(1, 2)

    q, k, v = (split(F.linear(n, weights[f'{p}_proj'])) for p in 'qkv')
    scores = q @ k.transpose(-2, -1) * q.shape[-1]**-.5
    out = (torch.softmax(scores, dim=-1) @ v).transpose(1, 2).flatten(2)
    h = h + F.linear(out, weights['o_proj'])
    n = rms_norm(h, weights['mlp_norm'], eps)
    gate, up, down = (p.weight.float()
                      for p in (mlp.gate_proj, mlp.up_proj, mlp.down_proj))
    h = h + F.linear(F.silu(F.linear(n, gate)) * F.linear(n, up), down)
    h = rms_norm(h, torch.ones_like(weights['mlp_norm']), eps)
    return neck.norm(F.linear(h, neck.mapper_out.weight))


def gradients(neck, run, x, direction) -> dict:
    """Output and all gradients of one run."""
    neck.zero_grad()
    x = x.clone().requires_grad_()
    out = run(x)
    (out * direction).sum().backward()
    return dict(
        out=out.detach(), x=x.grad,
        **{n: p.grad for n, p in neck.named_parameters()})


def worst(expected: dict, got: dict) -> float:
    """The largest relative error of output and gradients."""
    return max(((got[k] - v).norm() / v.norm()).item()
               for k, v in expected.items())


def macs_of_path(neck, x, queries, method, arch) -> int:
    """Multiply-accumulates of a path, forward and backward."""
    s = sizes_of(neck.block.layers[0], x, queries)
    asked = s.batch * s.queries
    # Frozen: output projection and MLP; trained: the second mapper.
    rest = 2 * (s.width**2 + 3 * s.width * arch['intermediate_size'])
    return count_macs(s)[method] + asked * (rest + 3 * s.channels * s.width)


def main() -> None:
    p = parser(__doc__)
    p.add_argument('--dtypes', nargs='+', default=['float32', 'bfloat16'])
    p.add_argument('--batch', type=int, default=8)
    p.add_argument('--tokens', type=int, default=197)
    p.add_argument('--channels', type=int, default=384)
    p.add_argument('--queries', type=int, default=1,
                   help='tokens that are read; default 1, the class token')
    p.add_argument('--reference-repeats', type=int, default=3)
    p.add_argument('--width', type=int, default=4096,
                   help="the language model's width; smaller for a trial")
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    arch = dict(LLAMA_7B, hidden_size=args.width,
                intermediate_size=args.width * 11008 // 4096)
    timer = Timer(args.device, args.repeats, args.warmup)
    slow = Timer(args.device, args.reference_repeats, 1)
    torch.manual_seed(0)
    x = torch.randn(args.batch, args.tokens, args.channels, device=args.device)
    direction = torch.randn(args.batch, args.queries, args.channels,
                            device=args.device)
    asked = slice(0, args.queries)

    rows, known, state, expected = [], {}, None, None
    for dtype in args.dtypes:
        neck = LLMBlockNeck(
            args.channels, dict(type='LLMBlock', arch=arch, dtype=dtype))
        nn.init.trunc_normal_(neck.mapper_in.weight, std=.02)
        nn.init.trunc_normal_(neck.mapper_out.weight, std=.02)
        if state is None:
            state = {k: v for k, v in neck.state_dict().items() if 'llm' not in k}
        neck.load_state_dict(state, strict=False)
        neck.to(args.device)
        rate = matmul_rate(args.device, args.batch * args.tokens, args.width,
                           DTYPES[dtype])
        runs = {}
        if expected is None:
            def reference(t, neck=neck):
                return plain_reference(neck.float(), t, arch)[:, asked]
            expected = gradients(neck, reference, x, direction)
            measured = slow(
                lambda n=neck: gradients(n, reference, x, direction))
            base = measured['seconds']
            rows.append(dict(path='plain reference, all tokens', dtype='float32',
                             speedup=1., error=0., **measured))
        for name, method, queries in (
                ('all tokens', 'off', None),
                ('all tokens, fold', 'fold', None),
                ('queries only', 'off', asked),
                ('queries only, fold', 'fold', asked),
                ('queries only, absorb', 'absorb', asked)):
            def run(t, neck=neck, method=method, queries=queries):
                neck.low_rank = method
                out = neck(t, queries=queries)
                return out if queries is not None else out[:, asked]
            runs[name] = run, method, queries
        for name, (run, method, queries) in runs.items():
            got = gradients(neck, run, x, direction)
            use = slow if queries is None else timer
            measured = use(lambda n=neck, r=run: gradients(n, r, x, direction))
            macs = macs_of_path(neck, x, queries, method, arch)
            products = record(lambda n=neck, r=run: gradients(n, r, x, direction))
            ceiling = time_products(products, args.device, timer, known)
            rows.append(
                dict(path=name, dtype=dtype, speedup=base / measured['seconds'],
                     error=worst(expected, got),
                     GMAC=macs / 1e9, run=count_gmac(products), ceiling=ceiling,
                     **{'of ceiling': measured['seconds'] / ceiling,
                        'of peak': measured['seconds'] * rate / macs},
                     **measured))
        del neck, runs
    rows.append(backbone_row(timer, args, base))
    report(
        f'Neck at D={args.width}, C={args.channels}, {args.batch} x '
        f'{args.tokens} tokens, {args.queries} read: forward + backward', rows,
        ('path', 'dtype', 'seconds', 'speedup', 'error', 'GMAC', 'run', 'ceiling',
         'of ceiling', 'of peak', 'peak_mb'), args,
        ['error: largest relative error of output and gradients against the '
         'reference.',
         'GMAC: of forward and backward, counted; run: of the products that ran; '
         'ceiling: the seconds that these take, each by itself with its shapes, '
         'types and layouts; of peak: against the counted GMAC at the best rate '
         f'of one [{args.batch * args.tokens}, {args.width}] x [{args.width}, '
         f'{args.width}] product.'])


def backbone_row(timer: Timer, args, base: float) -> dict:
    """The encoder that the block is added to: mmpretrain's ViT-S."""
    from mmpretrain.models import VisionTransformer
    vit = VisionTransformer('deit-small', img_size=224, patch_size=16)
    vit.to(args.device)
    images = torch.randn(args.batch, 3, 224, 224, device=args.device)

    def step():
        vit.zero_grad()
        vit(images)[0].sum().backward()

    measured = timer(step)
    return dict(path='(ViT-S without the block)', dtype='float32',
                speedup=base / measured['seconds'], **measured)


if __name__ == '__main__':
    main()
