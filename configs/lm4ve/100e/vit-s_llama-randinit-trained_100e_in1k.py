_base_ = '../vit-s_llama-randinit-trained_in1k.py'

train_cfg = dict(max_epochs=100)
