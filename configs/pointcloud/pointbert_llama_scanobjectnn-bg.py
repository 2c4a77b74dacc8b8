# Point-BERT with LLaMA-7B's last block on OBJ_BG.
_base_ = './pointbert_llama_scanobjectnn-hardest.py'

train_dataloader = dict(dataset=dict(variant='objectbg'))
val_dataloader = dict(dataset=dict(variant='objectbg'))
test_dataloader = dict(dataset=dict(variant='objectbg'))
