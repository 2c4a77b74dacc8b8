"""Check that low_rank='auto' picks the fastest path, over batches and outputs.

python tools/benchmarks/auto.py --dtype bfloat16 --out auto.json
"""

from functools import partial

import torch
from common import DTYPES, in_rounds, llama, parse, parser, report

import lm4ve  # noqa: F401
from lm4ve.necks import LLMBlockNeck


def main(argv=None) -> None:
    p = parser(__doc__, tokens=197, channels=384)
    p.add_argument('--dtype', default='bfloat16', choices=DTYPES)
    p.add_argument('--batches', type=int, nargs='+', default=[1, 2, 4, 8, 16])
    args = parse(p, argv)
    block = dict(type='LLMBlock', arch=llama(args.width), dtype=args.dtype)
    neck = LLMBlockNeck(args.channels, block)
    neck.init_weights()
    neck.to(args.device)

    def step(x, method):
        neck.low_rank = method
        neck.zero_grad()
        neck(x).sum().backward()

    rows = []
    for out_type, queries in (('cls_token', slice(0, 1)), ('raw', None)):
        neck.out_type = out_type
        methods = ['off', 'fold', 'absorb'] if queries else ['off', 'fold']
        for batch in args.batches:
            x = torch.randn(batch, args.tokens, args.channels, device=args.device)
            x.requires_grad_()
            times = in_rounds({m: partial(step, x, m) for m in methods}, args)
            best = {m: min(row['seconds'] for row in times[m]) for m in methods}
            chosen = neck.block.choose_low_rank(x, queries)
            share = best[chosen] / min(best.values())
            rows.append(dict(path=f'{out_type}, batch {batch}', **best, auto=chosen, ratio=share))
    report(
        f"'auto' against the best path, {args.dtype}: seconds (best of {args.repeats}), "
        'forward + backward',
        rows,
        args,
        'ratio: the chosen path against the fastest one.',
    )


if __name__ == '__main__':
    main()
