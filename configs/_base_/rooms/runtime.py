# ScanNet's runtime. As in SQA3D's release the checkpoint with the best EM@1 on the
# validation split is kept; the scores of papers are of the test split.
_base_ = '../default_runtime.py'

default_hooks = dict(checkpoint=dict(save_best='sqa3d/em@1', rule='greater'))
