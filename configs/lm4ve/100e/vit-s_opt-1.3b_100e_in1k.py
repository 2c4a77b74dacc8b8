_base_ = '../vit-s_opt-1.3b_in1k.py'

train_cfg = dict(max_epochs=100)
