# mmTransformer with 36 proposals, trained by regions (tools/motion/make_regions.py
# writes them), and the social decoder of its paper.
_base_ = './mmtransformer_argoverse1.py'

model = dict(
    encoder=dict(num_proposals=36, query_position=True),
    decoder=dict(
        social_decoder_layers=4,
        regions='data/argoverse1/regions.json',
        learned_weights=True,
        select=6,
    ),
)
