"""Time a whole training step of ViT-S with and without a LLaMA-7B-sized block.

python tools/benchmarks/train_step.py --out train_step.json
"""

import torch
from block import plain_reference
from common import in_rounds, llama, matmul_rate, parse, parser, report, step_row
from steps import configs, trainer


def main(argv=None) -> None:
    p = parser(__doc__)
    cases = ['16:float32', '32:bfloat16']
    p.add_argument('--cases', nargs='+', default=cases, help='batch:type of the frozen weights')
    p.add_argument('--low-rank', nargs='+', default=['auto'])
    reference = 'time the plain fp32 block too (several times slower)'
    p.add_argument('--reference', action='store_true', help=reference)
    args = parse(p, argv)

    def with_plain_block(model: torch.nn.Module) -> torch.nn.Module:
        """Replace the neck's computation: all tokens, explicit fp32 softmax."""
        neck, arch = model.neck, llama(args.width)
        neck.forward = lambda feats: (plain_reference(neck, feats[-1], arch)[:, 0],)
        return model

    rows = []
    for case in args.cases:
        batch, dtype = int(case.partition(':')[0]), case.partition(':')[2]
        plain, *_ = configs('image', args.width, dtype)
        steps = {'plain': trainer(plain, batch, args.device)}
        for method in args.low_rank:
            _, other, _ = configs('image', args.width, dtype, low_rank=method)
            steps[method] = trainer(other, batch, args.device)
        if args.reference:
            _, other, _ = configs('image', args.width, 'float32')
            steps['plain reference'] = trainer(other, batch, args.device, with_plain_block)
        times = in_rounds(steps, args)
        for name, own in times.items():
            row = dict(path='ViT-S', batch=batch)
            if name != 'plain':
                row['path'] += f' + LLaMA-7B block ({name})'
                row['dtype'] = 'float32' if name == 'plain reference' else dtype
            rows.append(row | step_row(own, times['plain']))
        del steps
    rate = matmul_rate(args.device, 16 * 197, 384, torch.float32)
    report(
        'A training step: preprocessor, forward, backward, AdamW',
        rows,
        args,
        f'This machine: {rate / 1e9:.0f} GMAC/s in fp32 on ViT-S-sized products '
        '([3152, 384] x [384, 384]). ratio: median over rounds in which both steps run after '
        'each other.',
    )


if __name__ == '__main__':
    main()
