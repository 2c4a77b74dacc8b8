_base_ = '../vit-s_mlp_in1k.py'

train_cfg = dict(max_epochs=100)
