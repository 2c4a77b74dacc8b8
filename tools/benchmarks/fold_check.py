"""Time what an evaluation pays for the proof that folded weights are fresh.

python tools/benchmarks/fold_check.py --out fold_check.json

Without the proof, what was folded once is used for ever, which no code of lm4ve does.
"""

import statistics
import time
from functools import partial

import torch
from common import DTYPES, in_rounds, llama, middle, parse, parser, ratio, report

import lm4ve  # noqa: F401
from lm4ve.necks import LLMBlockNeck


class Trusting(dict):
    """Stands in for the block's memory, and compares nothing."""

    def for_weights(self, layer, weight):
        return lambda name, make: self[name] if name in self else self.setdefault(name, make())


class Watched:
    """Stands in for the block's memory, and notes the CPU time of its comparisons by run."""

    def __init__(self, memory) -> None:
        self.memory, self.used = memory, []

    def for_weights(self, layer, weight):
        self.used.append(0.0)
        remember = self._timed(self.memory.for_weights)(layer, weight)
        return self._timed(remember)

    def _timed(self, function):
        def timed(*args):
            start = time.process_time()
            out = function(*args)
            self.used[-1] += time.process_time() - start
            return out

        return timed


@torch.no_grad()
def evaluate(neck, memory, method: str, x, queries: slice):
    """Run the neck as an evaluation does, with one memory or the other."""
    neck.block._fold_memory, neck.low_rank = memory, method
    return neck(x, queries=queries)


def price(run, memory, args) -> dict:
    """Return the seconds of an evaluation, and what of them the comparisons take."""
    watched = Watched(memory)
    run(memory)  # folds
    times = in_rounds(dict(proved=partial(run, watched), trusted=partial(run, Trusting())), args)
    proved, trusted = times['proved'], times['trusted']
    row = dict(middle(proved), without=middle(trusted)['seconds'])
    row['price'] = ratio(proved, trusted) - 1
    if 'cpu_seconds' in proved[0]:
        pairs = zip(watched.used[args.warmup :], proved, strict=True)
        row['CPU share'] = statistics.median(u / (r['cpu_seconds'] - u) for u, r in pairs)
    return row


def main(argv=None) -> None:
    p = parser(__doc__, tokens=197, channels=384, queries=1)
    p.add_argument('--batches', type=int, nargs='+', default=[1, 8])
    p.add_argument('--dtypes', nargs='+', default=['float32', 'bfloat16'], choices=DTYPES)
    args = parse(p, argv)
    rows = []
    for dtype in args.dtypes:
        block = dict(type='LLMBlock', arch=llama(args.width), dtype=dtype)
        neck = LLMBlockNeck(args.channels, block).eval()
        neck.init_weights()
        neck.to(args.device)
        proving = neck.block._fold_memory
        for batch in args.batches:
            x = torch.randn(batch, args.tokens, args.channels, device=args.device)
            for method in ('absorb', 'fold'):
                run = partial(evaluate, neck, method=method, x=x, queries=slice(0, args.queries))
                proving.clear()
                row = price(run, proving, args)
                rows.append(dict(path=f'{method}, batch {batch}', dtype=dtype, **row))
    report(
        f'Evaluation with the proof that folds are fresh: D={args.width}, C={args.channels}, '
        f'{args.tokens} tokens, {args.queries} read, forward',
        rows,
        args,
        f'seconds, and without the proof: medians of {args.repeats} rounds; price: the median of '
        'the ratios within a round, less 1; CPU share: CPU time of the comparisons by that of the '
        'rest, which other work on the machine disturbs less.',
    )


if __name__ == '__main__':
    main()
