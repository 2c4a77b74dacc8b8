# Motion forecasting (simulated traffic): the controls, on fewer scenes and epochs
# than the full training.
name = 'sim_controls'
title = 'Simulated traffic, VectorNet 64 wide'
base = '../lm4ve/vectornet-demo_none_sim.py'
metric = 'motion/minFDE@6'
greater_is_better = False
seeds = 8
reference = 'frozen pre-trained'

_epochs = 12
_counts = dict(train=960, val=500)
_root = 'data/traffic-sim-960'
common = {
    'train_cfg.max_epochs': _epochs,
    'param_scheduler.total_steps': _epochs,
    'train_dataloader.dataset.counts': _counts,
    'train_dataloader.dataset.root': _root,
    'test_dataloader.dataset.counts': _counts,
    'test_dataloader.dataset.root': _root,
}
_block = '../lm4ve/vectornet-demo_minilm_sim.py'
variants = {
    'none': dict(),
    'frozen pre-trained': dict(config=_block),
    'frozen random': dict(
        config=_block,
        options={
            'model.neck.block.pretrained': False,
            'model.neck.block.seed': '{seed}',
        }),
    'trained random': dict(
        config=_block,
        options={
            'model.neck.block.pretrained': False,
            'model.neck.block.trainable': 'all',
            'model.neck.block.seed': '{seed}',
        }),
    'MLP': dict(
        config=_block,
        options={
            'model.neck.block':
            dict(_delete_=True, type='MLPBlock', embed_dims=384),
        }),
}
# 'val' is the held-out split here, so that tuning cuts the training split.
tune = dict(
    fields=('optim_wrapper.optimizer.lr', 'param_scheduler.eta_max'),
    values=(7e-4, 2e-3, 6e-3),
    seeds=1,
    options={
        'train_dataloader.dataset.part': 'fit',
        'test_dataloader.dataset.split': 'train',
        'test_dataloader.dataset.part': 'val',
    })
