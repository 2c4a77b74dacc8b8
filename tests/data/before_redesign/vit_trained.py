# The whole block trains from random weights, causal and rotary; MMEngine's own EMA,
# whose average is what a checkpoint's state_dict holds.
_base_ = './vit.py'

model = dict(
    neck=dict(
        block=dict(
            pretrained=False,
            trainable='all',
            causal=True,
            rotary=True,
            final_norm=False,
        )
    )
)
custom_hooks = [dict(type='EMAHook', momentum=0.1)]
