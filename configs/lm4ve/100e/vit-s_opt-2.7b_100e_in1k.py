_base_ = '../vit-s_opt-2.7b_in1k.py'

train_cfg = dict(max_epochs=100)
