"""Time a whole training step of METER on questions, with and without a LLaMA-7B-sized block.

python tools/benchmarks/meter.py --out meter.json

METER is CLIP ViT-B/32 (eleven blocks), RoBERTa-base and six layers of co-attention, in
fp32, with random weights; the block is in --dtype. Its queries are the tokens that the
poolers read: the image's class token, and in the joint sequence the text's first token too.
"""

import torch
from common import in_rounds, llama, middle, parse, parser, ratio, report
from mmengine.registry import MODELS

import lm4ve  # noqa: F401
from lm4ve.tasks.base.language.structures import VisionLanguageDataSample

BASE = dict(width=768, depth=12, fusion=6, heads=12, vocabulary=50265, answers=3129, patch=32)
TINY = dict(width=32, depth=2, fusion=1, heads=2, vocabulary=100, answers=9, patch=32)


def meter(sizes: dict, image_size: int, neck: dict | None = None, tokens: str = 'visual'):
    """Build METER with a head of answers, with a neck if one is given."""
    width = sizes['width']
    shape = dict(
        hidden_size=width,
        intermediate_size=4 * width,
        num_attention_heads=sizes['heads'],
        num_hidden_layers=sizes['depth'],
    )
    image = dict(model_type='clip_vision_model', patch_size=sizes['patch'], **shape)
    text = dict(
        model_type='roberta',
        vocab_size=sizes['vocabulary'],
        max_position_embeddings=514,
        type_vocab_size=1,
        pad_token_id=1,
        layer_norm_eps=1e-5,
        **shape,
    )
    return MODELS.build(
        dict(
            type='lm4ve.METER',
            image_encoder=dict(
                type='lm4ve.TransformersImageEncoder', config=image, image_size=image_size
            ),
            text_encoder=dict(type='lm4ve.TransformersTextEncoder', config=text),
            fusion=dict(
                type='lm4ve.CoAttentionFusion',
                embed_dims=width,
                num_layers=sizes['fusion'],
                num_heads=sizes['heads'],
            ),
            head=dict(
                type='lm4ve.VQAHead',
                vocabulary=[f'answer {i}' for i in range(sizes['answers'])],
                in_channels=2 * width,
            ),
            neck=neck and dict(neck, in_channels=width),
            tokens=tokens,
        )
    )


def trainer(model, args):
    """Return a function that takes one AdamW step on random images and questions."""
    model.to(args.device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    shape = (args.batch, 1, args.words)
    inputs = dict(
        image=torch.randn(args.batch, 3, args.size, args.size),
        input_ids=torch.randint(4, 100, shape),
        text_padding=torch.zeros(shape, dtype=torch.bool),
    )
    inputs = {k: v.to(args.device) for k, v in inputs.items()}
    samples = [
        VisionLanguageDataSample(metainfo=dict(gt_answers=[f'answer {i % 9}'] * 10))
        for i in range(args.batch)
    ]

    def step():
        optimizer.zero_grad()
        sum(model(inputs, samples, 'loss').values()).backward()
        optimizer.step()

    return step


def main(argv=None) -> None:
    p = parser(__doc__, batch=16, size=224, words=16)
    p.add_argument('--tokens', nargs='+', default=['visual'], choices=('visual', 'joint'))
    p.add_argument('--dtype', default='bfloat16', help='of the frozen weights')
    p.add_argument('--tiny', action='store_true', help='a tiny METER, for a trial')
    args = parse(p, argv)
    sizes = TINY if args.tiny else BASE
    block = dict(type='LLMBlock', arch=llama(args.width), dtype=args.dtype)
    neck = dict(type='LLMBlockNeck', block=block, norm_cfg=None)
    models = {'METER': meter(sizes, args.size)}
    for tokens in args.tokens:
        models[f'METER + LLaMA-7B block on {tokens} tokens'] = meter(sizes, args.size, neck, tokens)
    times = in_rounds({name: trainer(m, args) for name, m in models.items()}, args)
    rows = []
    for name, own in times.items():
        row = dict(path=name, batch=args.batch, pixels=args.size, words=args.words)
        if name != 'METER':
            row['dtype'] = args.dtype
        row['ratio'] = ratio(own, times['METER'])
        if 'cpu_seconds' in own[0]:
            row['CPU ratio'] = ratio(own, times['METER'], 'cpu_seconds')
        rows.append(dict(row, **middle(own)))
    report(
        'A training step of METER on questions: forward, backward, AdamW',
        rows,
        args,
        'ratio: median over rounds in which all steps run after each other; CPU ratio: the same of '
        "this process's CPU time, for machines that others use too.",
    )


if __name__ == '__main__':
    main()
