# Point-BERT on ModelNet40, 4096 points in 256 groups.
_base_ = [
    '../_base_/pointcloud/pointbert.py',
    '../_base_/pointcloud/modelnet40-4k.py',
    '../_base_/pointcloud/schedule_300e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    backbone=dict(num_groups=256),
    head=dict(num_classes=40, label_smoothing=0.2 * 40 / 39),
)
