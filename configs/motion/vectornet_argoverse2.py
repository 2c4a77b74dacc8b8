# VectorNet on Argoverse 2, without a block.
_base_ = [
    '../_base_/motion/vectornet.py',
    '../_base_/motion/argoverse2.py',
    '../_base_/motion/schedule_60e.py',
    '../_base_/motion/runtime.py',
]

model = dict(decoder=dict(future_steps=60))
