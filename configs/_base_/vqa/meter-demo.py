# The demos' METER, 64 wide: a small vision transformer that starts at random,
# all-MiniLM-L6-v2's tokenizer and frozen text encoder, two layers of co-attention, no
# block. A config adds the size of the images and the head.
model = dict(
    type='lm4ve.METER',
    data_preprocessor=dict(
        type='lm4ve.VisionLanguagePreprocessor',
        tokenizer='package:all-MiniLM-L6-v2',
        max_length=32,
    ),
    image_encoder=dict(
        type='mmpretrain.VisionTransformer',
        arch=dict(embed_dims=64, num_layers=2, num_heads=4, feedforward_channels=128),
        patch_size=16,
        # Of few pictures, small convolutions learn shapes sooner than one large one.
        patch_cfg=dict(conv_type='lm4ve.ConvStem'),
        out_type='raw',
    ),
    text_encoder=dict(
        type='lm4ve.TransformersTextEncoder',
        checkpoint='package:all-MiniLM-L6-v2',
        frozen=True,
    ),
    fusion=dict(
        type='lm4ve.CoAttentionFusion',
        embed_dims=64,
        num_layers=2,
        num_heads=4,
        feedforward_channels=128,
        dropout=0.0,
    ),
    neck=None,
    # METER's deviation of .02 is too small for so narrow a model.
    init_cfg=dict(type='Xavier', layer='Linear', distribution='uniform'),
)
