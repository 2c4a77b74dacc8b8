# Point-BERT with a frozen block; the group encoder has another width than the ViT.
_base_ = './points.py'

model = dict(
    type='lm4ve.PointCloudClassifier',
    backbone=dict(
        type='lm4ve.PointBERT',
        embed_dims=16,
        depth=2,
        num_heads=2,
        num_groups=6,
        group_size=8,
        encoder_dims=8,
        encoder_channels=(4, 6, 8),
        mlp_ratio=2.0,
        drop_path_rate=0.0,
        final_norm=False,
        init_cfg=None,
    ),
    neck=dict(
        type='LLMBlockNeck',
        in_channels=16,
        norm_cfg=dict(type='LN', eps=1e-5),
        init_cfg=dict(type='TruncNormal', layer='Linear', std=0.2),
        block=dict(
            type='LLMBlock',
            pretrained=False,
            seed=3,
            layers=(0, 1),
            arch=dict(
                model_type='llama',
                hidden_size=24,
                intermediate_size=32,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                vocab_size=8,
            ),
        ),
    ),
    head=dict(
        type='lm4ve.PointClsHead',
        in_channels=16,
        num_classes=10,
        hidden=(12,),
        dropout=0.2,
        label_smoothing=0.1,
        init_cfg=None,
    ),
)
