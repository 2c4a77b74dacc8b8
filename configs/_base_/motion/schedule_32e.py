# The paper's recipe of mmTransformer: the rate falls to a quarter after 20, 24 and 28
# of 32 epochs. The optimizer is as in VectorNet's recipe (gradients clipped at 0.1 as
# in mmTransformer's own).
_base_ = './schedule_60e.py'

param_scheduler = dict(
    _delete_=True,
    type='MultiStepLR',
    milestones=[20, 24, 28],
    gamma=0.25,
    by_epoch=True,
)
train_cfg = dict(max_epochs=32)
