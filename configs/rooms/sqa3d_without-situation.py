# Control: every word of the situation is an unknown one, so that nobody can tell where
# the asker stands (SQA3D's ablation). There is nothing to read the pose from either.
_base_ = './sqa3d.py'

model = dict(data_preprocessor=dict(use_situation=False), pose_head=None)
