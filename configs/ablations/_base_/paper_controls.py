# The controls of the paper's models: each is the config with the block and an option. A
# grid adds its configs.
seeds = 3
subject = 'frozen pre-trained'

_random = {'model.neck.block.pretrained': False, 'model.neck.block.seed': '{seed}'}
_trained = {
    **_random,
    'model.neck.block.trainable': 'all',
    'model.neck.block.dtype': 'float32',
}
_mlp = {'model.neck.block': dict(_delete_=True, type='MLPBlock', embed_dims=4096)}
variants = {
    'none': dict(),
    'frozen pre-trained': dict(),
    'frozen random': dict(options=_random),
    'trained random': dict(options=_trained),
    'MLP': dict(options=_mlp),
}
