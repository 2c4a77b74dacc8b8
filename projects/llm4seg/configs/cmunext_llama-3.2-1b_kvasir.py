# LLM4Seg on Kvasir-SEG, polyps.
_base_ = './cmunext_llama-3.2-1b_busi.py'

data_root = 'data/kvasir'
train_dataloader = dict(dataset=dict(data_root=data_root, ann_file='kvasir_train.txt'))
val_dataloader = dict(dataset=dict(data_root=data_root, ann_file='kvasir_val.txt'))
test_dataloader = val_dataloader
