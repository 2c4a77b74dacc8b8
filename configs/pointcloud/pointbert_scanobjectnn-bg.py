# Point-BERT on ScanObjectNN OBJ_BG.
_base_ = [
    '../_base_/pointcloud/pointbert.py',
    '../_base_/pointcloud/scanobjectnn-bg.py',
    '../_base_/pointcloud/schedule_300e.py',
    '../_base_/default_runtime.py',
]
