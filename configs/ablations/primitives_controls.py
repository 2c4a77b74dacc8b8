# Point clouds (open3d's primitives): the controls, on a third of the objects and a
# third of the epochs of the full training.
name = 'primitives_controls'
title = 'Primitives, Point-BERT 64 wide and 3 deep'
base = '../lm4ve/pointbert-demo_none_primitives.py'
metric = 'accuracy/overall'
seeds = 8
reference = 'frozen pre-trained'

_epochs = 10
common = {
    'train_cfg.max_epochs': _epochs,
    'param_scheduler.total_steps': _epochs,
    'train_dataloader.dataset.per_class': 100,
    'test_dataloader.dataset.per_class': 100,
}
_block = '../lm4ve/pointbert-demo_minilm_primitives.py'
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
    'MLP': dict(config='../lm4ve/pointbert-demo_mlp_primitives.py'),
}
tune = dict(
    fields=('optim_wrapper.optimizer.lr', 'param_scheduler.eta_max'),
    values=(7e-4, 2e-3, 6e-3),
    seeds=1,
    options={
        'train_dataloader.dataset.split': 'fit',
        'test_dataloader.dataset.split': 'val',
    })
