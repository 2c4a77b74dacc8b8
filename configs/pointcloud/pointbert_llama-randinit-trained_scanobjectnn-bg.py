# Control (random block, trained) on OBJ_BG.
_base_ = './pointbert_llama-randinit-trained_scanobjectnn-hardest.py'

train_dataloader = dict(dataset=dict(variant='objectbg'))
val_dataloader = dict(dataset=dict(variant='objectbg'))
test_dataloader = dict(dataset=dict(variant='objectbg'))
