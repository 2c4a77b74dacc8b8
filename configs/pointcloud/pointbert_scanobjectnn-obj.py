# Point-BERT on ScanObjectNN OBJ_ONLY.
_base_ = [
    '../_base_/pointcloud/pointbert.py',
    '../_base_/pointcloud/scanobjectnn-obj.py',
    '../_base_/pointcloud/schedule_300e.py',
    '../_base_/default_runtime.py',
]
