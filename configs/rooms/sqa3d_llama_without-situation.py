# Control: LLaMA-7B's last block, frozen, and a situation of unknown words.
_base_ = './sqa3d_llama.py'

model = dict(data_preprocessor=dict(use_situation=False), pose_head=None)
