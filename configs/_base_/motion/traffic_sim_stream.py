# Simulated traffic as three sub-scenes of 10 steps, which end at steps 10, 15 and 20.
# The files have no headings and speeds: they are estimated.
_base_ = './traffic_sim.py'

pipeline = [
    dict(type='lm4ve.EstimateMotion'),
    dict(
        type='lm4ve.VectorizeSubScenes',
        ends=(10, 15, 20),
        history_steps=10,
        radius=50.0,
    ),
]
collate_fn = dict(type='lm4ve.collate_sub_scenes')
train_dataloader = dict(dataset=dict(pipeline=pipeline), collate_fn=collate_fn)
val_dataloader = dict(dataset=dict(pipeline=pipeline), collate_fn=collate_fn)
test_dataloader = val_dataloader
