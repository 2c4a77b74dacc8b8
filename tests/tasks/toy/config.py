"""Ten epochs of the toy task with a block of random weights."""

_base_ = '../../../configs/_base_/default_runtime.py'
custom_imports = dict(imports=['tests.tasks.toy'])  # adds the row
model = dict(
    type='lm4ve.WaveClassifier',
    neck=dict(
        type='LLMBlockNeck',
        in_channels=8,
        out_type='avg_featmap',
        block=dict(
            type='LLMBlock',
            arch=dict(
                model_type='llama',
                hidden_size=24,
                intermediate_size=32,
                num_hidden_layers=1,
                num_attention_heads=4,
                vocab_size=8,
            ),
        ),
    ),
)
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    dataset=dict(type='lm4ve.Waves', pipeline=[]),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = test_dataloader = dict(
    batch_size=8,
    num_workers=0,
    dataset=dict(type='lm4ve.Waves', pipeline=[], test_mode=True),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
val_evaluator = test_evaluator = dict(type='lm4ve.WaveAccuracy')
train_cfg = dict(by_epoch=True, max_epochs=10, val_interval=10)
val_cfg = test_cfg = dict()
optim_wrapper = dict(optimizer=dict(type='Adam', lr=0.03))
default_hooks = dict(checkpoint=dict(interval=10))
