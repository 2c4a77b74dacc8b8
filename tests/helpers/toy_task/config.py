"""Ten epochs of the toy task with a block of random weights."""

_base_ = '../../../configs/_base_/default_runtime.py'
custom_imports = dict(imports=['tests.helpers.toy_task'])  # adds the row
sizes = dict(
    hidden_size=24, intermediate_size=32, num_hidden_layers=1, num_attention_heads=4
)
arch = dict(sizes, model_type='llama', vocab_size=8)
neck = dict(type='LLMBlockNeck', in_channels=8, out_type='avg_featmap')
model = dict(
    type='lm4ve.WaveClassifier',
    neck=dict(**neck, block=dict(type='LLMBlock', arch=arch)),
)
waves = dict(type='lm4ve.Waves', pipeline=[])
loader = dict(batch_size=8, num_workers=0)
train_dataloader = dict(
    loader, dataset=waves, sampler=dict(type='DefaultSampler', shuffle=True)
)
val_dataloader = test_dataloader = dict(
    loader,
    dataset=dict(waves, test_mode=True),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
val_evaluator = test_evaluator = dict(type='lm4ve.WaveAccuracy')
train_cfg = dict(by_epoch=True, max_epochs=10, val_interval=10)
val_cfg = test_cfg = dict()
optim_wrapper = dict(optimizer=dict(type='Adam', lr=0.03))
default_hooks = dict(checkpoint=dict(interval=10))
