# Point-BERT with LLaMA-7B's last block, frozen, before the final norm, on PB_T50_RS.
_base_ = ['./pointbert_scanobjectnn-hardest.py', '../_base_/pointcloud/llama-7b.py']

model = _base_.with_block
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=_base_.mapper_rates))
