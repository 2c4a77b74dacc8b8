# The pre-trained block, fine-tuned with everything else.
_base_ = './vit-s_llama_in1k.py'

model = dict(neck=dict(block=dict(trainable='all', dtype='float32')))
