# Point-BERT with LLaMA-7B's last block, frozen, on ScanObjectNN OBJ_ONLY.
_base_ = [
    '../_base_/pointcloud/pointbert_llama-7b.py',
    '../_base_/pointcloud/scanobjectnn-obj.py',
    '../_base_/pointcloud/schedule_300e_llama-7b.py',
    '../_base_/default_runtime.py',
]
