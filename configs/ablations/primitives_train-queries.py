# Point clouds (primitives) in 256 groups: what a training loses whose steps compute
# some of the block's tokens. Objects are those of the controls, in 15 epochs for their
# 25, since a step with 256 groups takes some 1.4 s; the rate is the one that two seeds
# of tuning chose with 32 groups (primitives_branch.py).
_base_ = './primitives_controls.py'

name = 'primitives_train-queries'
title = 'Primitives, 256 groups: tokens that a training step computes'
base = '../pointcloud/pointbert-demo_minilm_primitives.py'
reference = 'all'

_epochs = 15
common = {
    'train_cfg.max_epochs': _epochs,
    'param_scheduler.total_steps': _epochs,
    'model.backbone.num_groups': 256,
    'optim_wrapper.optimizer.lr': 1e-3,
    'param_scheduler.eta_max': 1e-3,
}
_field = 'model.neck.train_queries'
variants = dict(
    _delete_=True,
    **{
        'all': dict(),
        'a quarter': dict(options={_field: 0.25}),
        'an eighth': dict(options={_field: 0.125}),
        'an eighth, growing to all': dict(
            options={_field: dict(fraction=(0.125, 1.0))}
        ),
    },
)
tune = None
