# Pictures of your own, in minutes on a CPU: EfficientNet-Lite0 as in the config without a
# block, with the last block of all-MiniLM-L6-v2 behind it.
_base_ = [
    './efficientnet-lite0_none_folder.py',
    '../_base_/llm/minilm.py',
    '../_base_/necks/avg_featmap.py',
]

model = dict(
    neck=dict(**_base_.llm_neck, in_channels=1280, block=_base_.llm_block),
)
