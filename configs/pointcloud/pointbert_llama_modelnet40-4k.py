# Point-BERT with LLaMA-7B's last block on ModelNet40, 4096 points.
_base_ = [
    '../_base_/pointcloud/pointbert_llama-7b.py',
    '../_base_/pointcloud/modelnet40-4k.py',
    '../_base_/pointcloud/schedule_300e_llama-7b.py',
    '../_base_/default_runtime.py',
]

model = dict(
    backbone=dict(num_groups=256),
    head=dict(num_classes=40, label_smoothing=0.2 * 40 / 39),
)
