"""Time a whole training step of ViT-S with and without a LLaMA-7B-sized block.

python tools/benchmarks/train_step.py --out train_step.json
"""

import torch
from common import in_rounds, matmul_rate, parse, parser, report, step_row
from steps import configs, trainer


def main(argv=None) -> None:
    p = parser(__doc__)
    cases = ['16:float32', '32:bfloat16']
    p.add_argument('--cases', nargs='+', default=cases, help='batch:type of the frozen weights')
    args = parse(p, argv)
    rows = []
    for case in args.cases:
        batch, dtype = int(case.partition(':')[0]), case.partition(':')[2]
        plain, other, _ = configs('image', args.width, dtype)
        named = {'ViT-S': plain, 'ViT-S + LLaMA-7B block': other}
        steps = {name: trainer(cfg, batch, args.device) for name, cfg in named.items()}
        times = in_rounds(steps, args)
        for name, own in times.items():
            row = dict(path=name, batch=batch, **({} if name == 'ViT-S' else dict(dtype=dtype)))
            rows.append(row | step_row(own, times['ViT-S']))
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
