# Control: the block from random initialisation, frozen.
_base_ = './pointbert_llama_scanobjectnn-hardest.py'

model = dict(neck=dict(block=dict(pretrained=False)))
