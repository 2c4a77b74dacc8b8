# The controls of the embedded data sets; a grid adds its configs and rates.
seeds = 8
subject = 'frozen pre-trained'

_random = {'model.neck.block.pretrained': False, 'model.neck.block.seed': '{seed}'}
variants = {
    'none': dict(),
    'frozen pre-trained': dict(),
    'frozen random': dict(options=_random),
    'trained random': dict(options={**_random, 'model.neck.block.trainable': 'all'}),
    'MLP': dict(),
}
tune = dict(fields=('optim_wrapper.optimizer.lr', 'param_scheduler.eta_max'), seeds=1)
