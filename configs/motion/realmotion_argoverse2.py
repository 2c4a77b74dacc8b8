# RealMotion's scene stream on Argoverse 2, without a block: PanguMotion's encoder.
_base_ = [
    '../_base_/motion/realmotion.py',
    '../_base_/motion/argoverse2_stream.py',
    '../_base_/motion/schedule_80e.py',
    '../_base_/motion/runtime.py',
]
