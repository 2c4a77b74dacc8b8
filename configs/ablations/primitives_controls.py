# Point clouds (generated primitives): the controls, on a third of the objects of
# the full training.
_base_ = './_base_/demo_controls.py'

name = 'primitives_controls'
title = 'Primitives, Point-BERT 64 wide and 3 deep'
base = '../pointcloud/pointbert-demo_none_primitives.py'
metric = 'accuracy/overall'

_epochs = 25
common = {
    'train_cfg.max_epochs': _epochs,
    'param_scheduler.total_steps': _epochs,
    'train_dataloader.dataset.per_class': 100,
    'test_dataloader.dataset.per_class': 100,
}
_block = '../pointcloud/pointbert-demo_minilm_primitives.py'
variants = {
    'frozen pre-trained': dict(config=_block),
    'frozen random': dict(config=_block),
    'trained random': dict(config=_block),
    'MLP': dict(config=_block),
}
tune = dict(
    values=(3e-4, 1e-3, 3e-3),
    options={
        'train_dataloader.dataset.split': 'fit',
        'train_dataloader.dataset.split_seed': '{seed}',
        'test_dataloader.dataset.split': 'val',
        'test_dataloader.dataset.split_seed': '{seed}',
    },
)
