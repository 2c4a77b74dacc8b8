custom_hooks = [
    dict(momentum=0.1, priority='ABOVE_NORMAL', type='lm4ve.KeptEMAHook'),
]
custom_imports = dict(imports=[
    'lm4ve',
])
data_preprocessor = dict(
    mean=[
        77.9,
        77.9,
        77.9,
    ],
    num_classes=10,
    std=[
        95.9,
        95.9,
        95.9,
    ],
    to_rgb=True)
default_hooks = dict(
    checkpoint=dict(
        interval=1, max_keep_ckpts=2, type='lm4ve.AtomicCheckpointHook'),
    logger=dict(interval=1, type='LoggerHook'),
    param_scheduler=dict(type='ParamSchedulerHook'),
    plain_checkpoint=dict(type='lm4ve.PlainCheckpointHook'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    timer=dict(type='IterTimerHook'))
default_scope = 'mmpretrain'
env_cfg = dict(
    cudnn_benchmark=False,
    dist_cfg=dict(backend='gloo'),
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0))
load_from = None
log_level = 'WARNING'
model = dict(
    backbone=dict(
        arch=dict(
            embed_dims=16, feedforward_channels=24, num_heads=2, num_layers=1),
        final_norm=False,
        img_size=8,
        out_type='raw',
        patch_size=2,
        type='VisionTransformer'),
    head=dict(
        in_channels=16,
        loss=dict(
            label_smooth_val=0.1, mode='original', type='LabelSmoothLoss'),
        num_classes=10,
        type='VisionTransformerClsHead'),
    neck=dict(
        block=dict(
            arch=dict(
                attention_bias=False,
                attention_dropout=0.0,
                bos_token_id=1,
                eos_token_id=2,
                head_dim=6,
                hidden_act='silu',
                hidden_size=24,
                initializer_range=0.02,
                intermediate_size=32,
                is_encoder_decoder=False,
                max_position_embeddings=64,
                mlp_bias=False,
                model_type='llama',
                num_attention_heads=4,
                num_hidden_layers=2,
                num_key_value_heads=2,
                pad_token_id=0,
                pretraining_tp=1,
                rms_norm_eps=1e-05,
                rope_parameters=dict(rope_theta=10000.0, rope_type='default'),
                tie_word_embeddings=False,
                vocab_size=8),
            checkpoint=None,
            layers=(1, ),
            pretrained=False,
            type='LLMBlock'),
        in_channels=16,
        init_cfg=dict(layer='Linear', std=0.2, type='TruncNormal'),
        out_type='cls_token',
        type='LLMBlockNeck'),
    type='ImageClassifier')
optim_wrapper = dict(
    clip_grad=dict(max_norm=5.0),
    optimizer=dict(lr=0.01, type='AdamW', weight_decay=0.05))
param_scheduler = dict(
    by_epoch=True,
    convert_to_iter_based=True,
    eta_max=0.01,
    total_steps=3,
    type='OneCycleLR')
pipeline = [
    dict(type='PackInputs'),
]
randomness = dict(deterministic=False, seed=0)
resume = False
test_cfg = dict()
test_dataloader = dict(
    batch_size=32,
    dataset=dict(
        indices=64,
        pipeline=[
            dict(type='PackInputs'),
        ],
        split='test',
        type='lm4ve.DigitsDataset'),
    num_workers=0,
    sampler=dict(shuffle=False, type='DefaultSampler'))
test_evaluator = dict(
    topk=(
        1,
        5,
    ), type='Accuracy')
train_cfg = dict(by_epoch=True, max_epochs=3, val_interval=1)
train_dataloader = dict(
    batch_size=16,
    dataset=dict(
        indices=320,
        pipeline=[
            dict(type='PackInputs'),
        ],
        split='train',
        type='lm4ve.DigitsDataset'),
    num_workers=0,
    sampler=dict(shuffle=True, type='DefaultSampler'))
val_cfg = dict()
val_dataloader = dict(
    batch_size=32,
    dataset=dict(
        indices=64,
        pipeline=[
            dict(type='PackInputs'),
        ],
        split='test',
        type='lm4ve.DigitsDataset'),
    num_workers=0,
    sampler=dict(shuffle=False, type='DefaultSampler'))
val_evaluator = dict(
    topk=(
        1,
        5,
    ), type='Accuracy')
