"""Check that low_rank='auto' picks the fastest path, over batches and outputs.

python tools/benchmarks/auto.py --dtype bfloat16 --out auto.json
"""

from functools import partial

import torch
from block import LLAMA_7B
from common import in_rounds, parser, report, seconds

import lm4ve  # noqa: F401
from lm4ve.necks import LLMBlockNeck


def main() -> None:
    p = parser(__doc__)
    p.add_argument('--dtype', default='bfloat16')
    p.add_argument('--batches', type=int, nargs='+', default=[1, 2, 4, 8, 16])
    p.add_argument('--tokens', type=int, default=197)
    p.add_argument('--channels', type=int, default=384)
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    neck = LLMBlockNeck(args.channels, dict(type='LLMBlock', arch=LLAMA_7B, dtype=args.dtype))
    neck.init_weights()
    neck.to(args.device)
    rows = []
    for out_type in ('cls_token', 'raw'):
        methods = ['off', 'fold'] + ['absorb'] * (out_type == 'cls_token')
        for batch in args.batches:
            neck.out_type = out_type
            x = torch.randn(
                batch, args.tokens, args.channels, device=args.device, requires_grad=True
            )

            def step(method, x=x):
                neck.low_rank = method
                neck.zero_grad()
                neck(x).sum().backward()

            times = in_rounds(
                {m: partial(step, m) for m in methods}, args.device, args.repeats, args.warmup
            )
            best = {m: min(seconds(t)) for m, t in times.items()}
            queries = slice(0, 1) if out_type == 'cls_token' else None
            chosen = neck.block._method(x, queries, 'auto')
            rows.append(
                dict(
                    path=f'{out_type}, batch {batch}',
                    **best,
                    auto=chosen,
                    ratio=best[chosen] / min(best.values()),
                )
            )
    report(
        f'auto against the best path, {args.dtype}: seconds (best of '
        f'{args.repeats}), forward + backward',
        rows,
        ('path', 'off', 'fold', 'absorb', 'auto', 'ratio'),
        args,
        ['ratio: the chosen path against the fastest one.'],
    )


if __name__ == '__main__':
    main()
