_base_ = '../vit-s_opt-350m_in1k.py'

train_cfg = dict(max_epochs=100)
