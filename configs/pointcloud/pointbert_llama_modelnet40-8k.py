# Point-BERT with LLaMA-7B's last block on ModelNet40, 8192 points.
_base_ = ['./pointbert_modelnet40-8k.py', '../_base_/pointcloud/llama-7b.py']

model = _base_.with_block
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=_base_.mapper_rates))
