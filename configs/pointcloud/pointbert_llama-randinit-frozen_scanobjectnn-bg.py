# Control (random block, frozen) on OBJ_BG.
_base_ = './pointbert_llama-randinit-frozen_scanobjectnn-hardest.py'

train_dataloader = dict(dataset=dict(variant='objectbg'))
val_dataloader = dict(dataset=dict(variant='objectbg'))
test_dataloader = dict(dataset=dict(variant='objectbg'))
