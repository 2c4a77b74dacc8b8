# mmTransformer with every optional part: regions, learned loss weights, positions of
# queries, the social decoder, the choice of proposals that end apart.
_base_ = './scenes.py'

model = dict(
    type='lm4ve.MotionForecaster',
    encoder=dict(
        type='lm4ve.MMTransformer',
        num_proposals=6,
        channels=8,
        feedforward=8,
        query_position=True,
        final_norm=False,
    ),
    neck=dict(
        type='LLMBlockNeck',
        in_channels=8,
        init_cfg=dict(type='TruncNormal', layer='Linear', std=0.2),
        block=dict(
            type='LLMBlock', checkpoint='tests/data/before_redesign/llm/tiny-llama'
        ),
    ),
    decoder=dict(
        type='lm4ve.ProposalDecoder',
        future_steps=30,
        channels=8,
        feedforward=8,
        social_decoder_layers=1,
        regions='fan',
        num_regions=3,
        select=6,
    ),
)
