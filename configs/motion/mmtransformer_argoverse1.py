# mmTransformer on Argoverse 1 with 6 proposals (its released version), no block.
_base_ = [
    '../_base_/motion/argoverse1.py',
    '../_base_/motion/schedule_32e.py',
    '../_base_/motion/runtime.py',
]

# As in mmTransformer: agents within 56 m, lanes in a square of +-65 m.
val_pipeline = [dict(type='lm4ve.VectorizeScene', agent_range=56.0, lane_range=65.0)]
train_pipeline = val_pipeline + [
    dict(type='lm4ve.FlipScene'),
    dict(type='lm4ve.MaskHistory', steps=10),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=val_pipeline))
test_dataloader = val_dataloader

model = dict(
    type='lm4ve.MotionForecaster',
    encoder=dict(type='lm4ve.MMTransformer', num_proposals=6),
    neck=None,
    decoder=dict(type='lm4ve.ProposalDecoder', future_steps=30),
)
