"""Time a whole training step of ViT-S with and without a LLaMA-7B-sized block.

python tools/benchmarks/train_step.py --out train_step.json
"""

import torch
from block import plain_reference
from common import in_rounds, llama, matmul_rate, middle, parse, parser, ratio, report
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

import lm4ve  # noqa: F401


def classifier(neck: dict | None = None):
    """Build mmpretrain's DeiT-S, with a neck if one is given."""
    raw = dict(out_type='raw', final_norm=False) if neck else {}
    return MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=dict(type='VisionTransformer', arch='deit-small', patch_size=16, **raw),
            neck=neck,
            head=dict(
                type='VisionTransformerClsHead',
                num_classes=1000,
                in_channels=384,
                loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
            ),
        )
    )


def with_block(width: int, dtype: str, low_rank: str = 'auto'):
    """Build DeiT-S with a block whose class token alone is read."""
    block = dict(type='LLMBlock', arch=llama(width), dtype=dtype)
    neck = dict(type='LLMBlockNeck', in_channels=384, block=block, low_rank=low_rank)
    return classifier(dict(neck, out_type='cls_token'))


def with_plain_block(width: int):
    """Build DeiT-S with the plain fp32 block: all tokens, explicit softmax."""
    model = with_block(width, 'float32')
    neck = model.neck
    neck.forward = lambda feats: (plain_reference(neck, feats[-1], llama(width))[:, 0],)
    return model


def trainer(model, batch: int, device: str):
    """Return a function that takes one AdamW step on random images."""
    model.to(device).train()
    model.init_weights()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    images = torch.randn(batch, 3, 224, 224, device=device)
    samples = [DataSample().set_gt_label(i % 1000).to(device) for i in range(batch)]

    def step():
        optimizer.zero_grad()
        model.loss(images, samples)['loss'].backward()
        optimizer.step()

    return step


def main(argv=None) -> None:
    p = parser(__doc__)
    p.add_argument(
        '--cases',
        nargs='+',
        default=['16:float32', '32:bfloat16'],
        help='batch:type of the frozen weights',
    )
    p.add_argument('--low-rank', nargs='+', default=['auto'])
    p.add_argument(
        '--reference',
        action='store_true',
        help='time the plain fp32 block too (several times slower)',
    )
    args = parse(p, argv)
    rows = []
    for case in args.cases:
        batch, dtype = case.split(':')
        models = {'plain': classifier()}
        models |= {m: with_block(args.width, dtype, m) for m in args.low_rank}
        if args.reference:
            models['plain reference'] = with_plain_block(args.width)
        times = in_rounds(
            {name: trainer(model, int(batch), args.device) for name, model in models.items()}, args
        )
        for name, own in times.items():
            row = dict(path='ViT-S', batch=int(batch))
            if name != 'plain':
                row['path'] += f' + LLaMA-7B block ({name})'
                row['dtype'] = 'float32' if name == 'plain reference' else dtype
            rows.append(dict(row, ratio=ratio(own, times['plain']), **middle(own)))
        del models
    rate = matmul_rate(args.device, 16 * 197, 384, torch.float32)
    report(
        'A training step: forward, backward, AdamW',
        rows,
        args,
        f'This machine: {rate / 1e9:.0f} GMAC/s in fp32 on ViT-S-sized products '
        '([3152, 384] x [384, 384]). ratio: median over rounds in which both steps run after '
        'each other.',
    )


if __name__ == '__main__':
    main()
