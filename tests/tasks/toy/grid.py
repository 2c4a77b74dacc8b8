"""The frozen block of the toy task against the control without attention."""

name = 'toy_task'
base = 'config.py'
metric = 'wave/accuracy'
seeds = 1
reference = 'MLP'
variants = {
    'block': dict(),
    'MLP': dict(options={'model.neck.block': dict(_delete_=True, type='MLPBlock', embed_dims=24)}),
}
