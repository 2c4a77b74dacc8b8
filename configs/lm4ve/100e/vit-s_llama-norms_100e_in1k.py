_base_ = '../vit-s_llama-norms_in1k.py'

train_cfg = dict(max_epochs=100)
