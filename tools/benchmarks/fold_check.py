"""Time an evaluation step by method, and what lm4ve.fuse saves of it.

python tools/benchmarks/fold_check.py --out fold_check.json
"""

from functools import partial

import torch
from common import DTYPES, in_rounds, llama, middle, parse, parser, report

import lm4ve
from lm4ve.necks import LLMBlockNeck


@torch.no_grad()
def evaluate(neck, method: str, x, queries):
    """Run the neck as an evaluation does."""
    neck.low_rank = method
    return neck(x, queries=queries)


def main(argv=None) -> None:
    p = parser(__doc__, tokens=197, channels=384)
    p.add_argument('--batches', type=int, nargs='+', default=[1, 8])
    p.add_argument('--dtypes', nargs='+', default=['float32', 'bfloat16'], choices=DTYPES)
    args = parse(p, argv)
    rows = []
    for dtype in args.dtypes:
        block = dict(type='LLMBlock', arch=llama(args.width), dtype=dtype)
        neck = LLMBlockNeck(args.channels, block).eval()
        neck.init_weights()
        neck.to(args.device)
        fused = lm4ve.fuse(neck)
        for name, queries in (('class token', slice(0, 1)), ('all tokens', None)):
            for batch in args.batches:
                x = torch.randn(batch, args.tokens, args.channels, device=args.device)
                runs = {m: partial(evaluate, neck, m, x, queries) for m in ('off', 'auto', 'fold')}
                runs['fused'] = partial(evaluate, fused, 'auto', x, queries)
                times = in_rounds(runs, args)
                seconds = {m: middle(t)['seconds'] for m, t in times.items()}
                rows.append(dict(path=f'{name}, batch {batch}', dtype=dtype, **seconds))
    report(
        f'Evaluation by method: D={args.width}, C={args.channels}, {args.tokens} tokens, forward',
        rows,
        args,
        f'seconds: medians of {args.repeats} rounds.',
    )


if __name__ == '__main__':
    main()
