# Point-BERT on ModelNet40, 8192 points in 512 groups.
_base_ = [
    '../_base_/pointcloud/pointbert.py',
    '../_base_/pointcloud/modelnet40-8k.py',
    '../_base_/pointcloud/schedule_300e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    backbone=dict(num_groups=512),
    head=dict(num_classes=40, label_smoothing=0.2 * 40 / 39),
)
