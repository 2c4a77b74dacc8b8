# Point-BERT on ModelNet40, 1024 points in 64 groups.
_base_ = [
    '../_base_/pointcloud/pointbert.py',
    '../_base_/pointcloud/modelnet40-1k.py',
    '../_base_/pointcloud/schedule_300e.py',
    '../_base_/default_runtime.py',
]

model = dict(head=dict(num_classes=40, label_smoothing=0.2 * 40 / 39))
