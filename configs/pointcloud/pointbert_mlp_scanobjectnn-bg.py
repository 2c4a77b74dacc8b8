# Control (GELU and LayerNorm in the block's place) on OBJ_BG.
_base_ = './pointbert_mlp_scanobjectnn-hardest.py'

train_dataloader = dict(dataset=dict(variant='objectbg'))
val_dataloader = dict(dataset=dict(variant='objectbg'))
test_dataloader = dict(dataset=dict(variant='objectbg'))
