# One cycle over 4 epochs, for the small RealMotion, whose epoch has three sub-scenes of
# each scene: minutes on two cores.
_base_ = './onecycle_30e.py'

param_scheduler = dict(total_steps=4)
train_cfg = dict(max_epochs=4, val_interval=4)
