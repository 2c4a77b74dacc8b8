# Point-BERT with LLaMA-7B's last block on OBJ_ONLY.
_base_ = './pointbert_llama_scanobjectnn-hardest.py'

train_dataloader = dict(dataset=dict(variant='objectonly'))
val_dataloader = dict(dataset=dict(variant='objectonly'))
test_dataloader = dict(dataset=dict(variant='objectonly'))
