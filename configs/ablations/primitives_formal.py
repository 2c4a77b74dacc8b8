# Point clouds (generated primitives): does a block without language help as much? On a
# third of the objects of the full training.
_base_ = './_base_/formal_controls.py'

name = 'primitives_formal'
title = 'Primitives, Point-BERT 64 wide and 3 deep, 1,000 objects'
base = '../pointcloud/pointbert-demo_none_primitives.py'
metric = 'accuracy/overall'

_epochs = 25
common = {
    'train_cfg.max_epochs': _epochs,
    'param_scheduler.total_steps': _epochs,
    'train_dataloader.dataset.per_class': 100,
    'test_dataloader.dataset.per_class': 100,
}
_block = dict(config='../pointcloud/pointbert-demo_minilm_primitives.py')
variants = {
    'frozen pre-trained': _block,
    'frozen random': _block,
    'Dyck': _block,
    'attention layer': _block,
}
tune = dict(
    values=(3e-4, 1e-3, 2e-3, 3e-3, 6e-3, 1.2e-2),
    options={
        'train_dataloader.dataset.split': 'fit',
        'train_dataloader.dataset.split_seed': '{seed}',
        'test_dataloader.dataset.split': 'val',
        'test_dataloader.dataset.split_seed': '{seed}',
    },
)
