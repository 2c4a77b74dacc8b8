# What every training here shares: SGD, three epochs, no logs, and a neck with a random
# block.
custom_imports = dict(imports=['lm4ve'])
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=1),
    checkpoint=dict(type='lm4ve.AtomicCheckpointHook', interval=1, max_keep_ckpts=2),
    plain_checkpoint=dict(type='lm4ve.PlainCheckpointHook'),
)
env_cfg = dict(dist_cfg=dict(backend='gloo'))
log_level = 'WARNING'
randomness = dict(seed=0)
optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=0.1, momentum=0.0), clip_grad=dict(max_norm=5.0)
)
param_scheduler = dict(type='CosineAnnealingLR', T_max=3, by_epoch=True)
train_cfg = dict(by_epoch=True, max_epochs=3, val_interval=1)
val_cfg = test_cfg = dict()
in_order = dict(type='DefaultSampler', shuffle=False)
shuffled = dict(type='DefaultSampler', shuffle=True)
sizes = dict(hidden_size=24, intermediate_size=32, num_hidden_layers=2, vocab_size=8)
arch = dict(model_type='llama', num_attention_heads=4, num_key_value_heads=2, **sizes)
llm_neck = dict(
    type='LLMBlockNeck',
    init_cfg=dict(type='TruncNormal', layer='Linear', std=0.2),
    block=dict(type='LLMBlock', pretrained=False, seed=3, layers=(0, 1), arch=arch),
)
