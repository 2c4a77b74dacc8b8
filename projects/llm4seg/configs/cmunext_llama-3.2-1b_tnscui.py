# LLM4Seg on TNSCUI, thyroid nodules.
_base_ = './cmunext_llama-3.2-1b_busi.py'

data_root = 'data/tnscui'
train_dataloader = dict(dataset=dict(data_root=data_root, ann_file='tnscui_train.txt'))
val_dataloader = dict(dataset=dict(data_root=data_root, ann_file='tnscui_val.txt'))
test_dataloader = val_dataloader
