# LLM4Seg on ISIC 2018, skin lesions.
_base_ = './cmunext_llama-3.2-1b_busi.py'

data_root = 'data/isic'
train_dataloader = dict(dataset=dict(data_root=data_root, ann_file='isic_train.txt'))
val_dataloader = dict(dataset=dict(data_root=data_root, ann_file='isic_val.txt'))
test_dataloader = val_dataloader
