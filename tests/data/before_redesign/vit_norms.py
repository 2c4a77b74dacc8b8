# The block's norms train; both residuals, the mean over tokens before the norm.
_base_ = './vit.py'

model = dict(
    backbone=dict(with_cls_token=False),
    neck=dict(residual='both', out_type='avg_featmap', block=dict(trainable='norms')),
)
