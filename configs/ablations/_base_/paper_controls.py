# The controls of the paper's models; a grid adds its configs.
seeds = 3
subject = 'frozen pre-trained'

_seed = {'model.neck.block.seed': '{seed}'}
variants = {
    'none': dict(),
    'frozen pre-trained': dict(),
    'frozen random': dict(options=_seed),
    'trained random': dict(options=_seed),
    'MLP': dict(),
}
