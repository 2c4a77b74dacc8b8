# Mappers that start as torch makes an nn.Linear, in the tasks whose released code leaves
# them so or was never released (docs/guides/configs.md says which and why). A config
# writes
#   neck=dict(..., init_cfg=_base_.mapper_init)
mapper_init = dict(type='lm4ve.TorchDefault', layer='Linear')
