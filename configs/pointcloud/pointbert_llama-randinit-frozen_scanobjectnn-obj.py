# Control (random block, frozen) on OBJ_ONLY.
_base_ = './pointbert_llama-randinit-frozen_scanobjectnn-hardest.py'

train_dataloader = dict(dataset=dict(variant='objectonly'))
val_dataloader = dict(dataset=dict(variant='objectonly'))
test_dataloader = dict(dataset=dict(variant='objectonly'))
