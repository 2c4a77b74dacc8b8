# METER as the paper of the blocks used it: CLIP ViT-B/32 without its last block and
# RoBERTa-base, six layers of co-attention that start at random, no pre-training on
# images with texts. Both encoders are downloaded from the hub when training starts;
# local folders serve as well:
#   --cfg-options model.image_encoder.checkpoint=/path/to/clip model.text_encoder...
# Every size of images is one override, --cfg-options image_size=384.
model = dict(
    type='lm4ve.METER',
    data_preprocessor=dict(
        type='lm4ve.VisionLanguagePreprocessor',
        tokenizer='FacebookAI/roberta-base',
        max_length=50,
    ),
    image_encoder=dict(
        type='lm4ve.TransformersImageEncoder',
        checkpoint='openai/clip-vit-base-patch32',
        image_size=224,
        drop_layers=1,
    ),
    text_encoder=dict(
        type='lm4ve.TransformersTextEncoder', checkpoint='FacebookAI/roberta-base'
    ),
    fusion=dict(
        type='lm4ve.CoAttentionFusion',
        embed_dims=768,
        num_layers=6,
        num_heads=12,
        dropout=0.1,
    ),
    neck=None,
)
