# Point-BERT with LLaMA-7B's last block, frozen, before the final norm, on PB_T50_RS.
_base_ = [
    '../_base_/pointcloud/pointbert_llama-7b.py',
    '../_base_/pointcloud/scanobjectnn.py',
    '../_base_/pointcloud/schedule_300e_llama-7b.py',
    '../_base_/default_runtime.py',
]
