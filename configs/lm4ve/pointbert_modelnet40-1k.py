# Point-BERT on ModelNet40, 1024 points in 64 groups.
_base_ = [
    '../_base_/models/pointbert.py', '../_base_/datasets/modelnet40-1k.py',
    '../_base_/schedules/pointcloud_300e.py', '../_base_/pointcloud_runtime.py'
]

model = dict(head=dict(num_classes=40))
