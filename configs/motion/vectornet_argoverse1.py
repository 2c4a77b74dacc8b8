# VectorNet on Argoverse 1, without a block.
_base_ = [
    '../_base_/motion/vectornet.py',
    '../_base_/motion/argoverse1.py',
    '../_base_/motion/schedule_60e.py',
    '../_base_/motion/runtime.py',
]
