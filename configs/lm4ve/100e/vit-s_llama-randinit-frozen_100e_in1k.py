_base_ = '../vit-s_llama-randinit-frozen_in1k.py'

train_cfg = dict(max_epochs=100)
