# The controls of the embedded data sets; a grid adds its configs and rates.
seeds = 8
subject = 'frozen pre-trained'

_random = {'model.neck.block.pretrained': False, 'model.neck.block.seed': '{seed}'}
_mlp = {'model.neck.block': dict(_delete_=True, type='MLPBlock', embed_dims=384)}
variants = {
    'none': dict(),
    'frozen pre-trained': dict(),
    'frozen random': dict(options=_random),
    'trained random': dict(options={**_random, 'model.neck.block.trainable': 'all'}),
    'MLP': dict(options=_mlp),
}
tune = dict(fields=('optim_wrapper.optimizer.lr', 'param_scheduler.eta_max'), seeds=1)
