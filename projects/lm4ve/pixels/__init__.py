"""Resizing and affine transforms of RGB pictures that give Pillow's pixels in less time.

These two take most of the time of our input pipelines. :mod:`.resample` is the
interface, :mod:`.kernels` has the loops that numba compiles, and :mod:`.for_mmcv` lets
mmcv's ``imresize`` use them.
"""
