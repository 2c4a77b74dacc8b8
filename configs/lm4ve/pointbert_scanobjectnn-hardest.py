# Point-BERT on PB_T50_RS, the hardest variant of ScanObjectNN.
_base_ = [
    '../_base_/models/pointbert.py', '../_base_/datasets/scanobjectnn.py',
    '../_base_/schedules/pointcloud_300e.py', '../_base_/pointcloud_runtime.py'
]
