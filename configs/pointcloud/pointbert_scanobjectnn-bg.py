# Point-BERT on OBJ_BG.
_base_ = './pointbert_scanobjectnn-hardest.py'

train_dataloader = dict(dataset=dict(variant='objectbg'))
val_dataloader = dict(dataset=dict(variant='objectbg'))
test_dataloader = dict(dataset=dict(variant='objectbg'))
