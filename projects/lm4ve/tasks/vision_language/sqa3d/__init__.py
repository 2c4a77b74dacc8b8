"""Question answering in scanned rooms (SQA3D): a part of the task of images with texts.

It shares the text encoders, the vocabulary and the data samples of that task; what is
three-dimensional stands here.
"""
