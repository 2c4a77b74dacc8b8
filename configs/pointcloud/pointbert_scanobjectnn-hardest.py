# Point-BERT on PB_T50_RS, the hardest variant of ScanObjectNN.
_base_ = [
    '../_base_/pointcloud/pointbert.py',
    '../_base_/pointcloud/scanobjectnn.py',
    '../_base_/pointcloud/schedule_300e.py',
    '../_base_/default_runtime.py',
]
