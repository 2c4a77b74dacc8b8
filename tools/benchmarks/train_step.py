"""Time a whole training step of ViT-S with and without a LLaMA-7B-sized block.

python tools/benchmarks/train_step.py --out train_step.json
"""

import torch
from block import LLAMA_7B, plain_reference
from common import in_rounds, matmul_rate, middle, parser, ratio, report, seconds
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

import lm4ve  # noqa: F401


def classifier(**block):
    """mmpretrain's DeiT-S, with a block if one is given."""
    cfg = dict(
        type='ImageClassifier',
        backbone=dict(type='VisionTransformer', arch='deit-small', img_size=224, patch_size=16),
        head=dict(
            type='VisionTransformerClsHead',
            num_classes=1000,
            in_channels=384,
            loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
        ),
    )
    if block:
        low_rank = block.pop('low_rank', 'auto')
        cfg['backbone'].update(out_type='raw', final_norm=False)
        cfg['neck'] = dict(
            type='LLMBlockNeck',
            in_channels=384,
            out_type='cls_token',
            low_rank=low_rank,
            block=dict(type='LLMBlock', arch=LLAMA_7B, **block),
        )
    return MODELS.build(cfg)


def reference_classifier():
    """DeiT-S with the plain fp32 block: all tokens, explicit softmax."""
    model = classifier(dtype='float32')
    neck = model.neck
    neck.forward = lambda feats: (plain_reference(neck, feats[-1], LLAMA_7B)[:, 0],)
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


def main() -> None:
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
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    for case in args.cases:
        batch, dtype = case.split(':')
        batch = int(batch)
        plain = trainer(classifier(), batch, args.device)
        steps = {
            m: trainer(classifier(dtype=dtype, low_rank=m), batch, args.device)
            for m in args.low_rank
        }
        if args.reference:
            steps['plain reference'] = trainer(reference_classifier(), batch, args.device)
        timed = in_rounds({'plain': plain, **steps}, args.device, args.repeats, args.warmup)
        rows.append(dict(path='ViT-S', batch=batch, ratio=1.0, **middle(timed['plain'])))
        for name in steps:
            rows.append(
                dict(
                    path=f'ViT-S + LLaMA-7B block ({name})',
                    batch=batch,
                    dtype='float32' if 'plain' in name else dtype,
                    ratio=ratio(seconds(timed[name]), seconds(timed['plain'])),
                    **middle(timed[name]),
                )
            )
        del plain, steps
    rate = matmul_rate(args.device, 16 * 197, 384, torch.float32)
    report(
        'A training step: forward, backward, AdamW',
        rows,
        ('path', 'batch', 'dtype', 'seconds', 'ratio', 'peak_mb'),
        args,
        [
            f'This machine: {rate / 1e9:.0f} GMAC/s in fp32 on ViT-S-sized '
            'products ([3152, 384] x [384, 384]). ratio: median over rounds '
            'in which both steps run after each other.'
        ],
    )


if __name__ == '__main__':
    main()
