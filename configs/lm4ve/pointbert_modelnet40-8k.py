# Point-BERT on ModelNet40, 8192 points in 512 groups.
_base_ = [
    '../_base_/models/pointbert.py', '../_base_/datasets/modelnet40-8k.py',
    '../_base_/schedules/pointcloud_300e.py', '../_base_/pointcloud_runtime.py'
]

model = dict(backbone=dict(num_groups=512), head=dict(num_classes=40))
