# Real digits: does a block without language help as much? The demo's own training, all
# 100 epochs.
_base_ = './_base_/formal_controls.py'

name = 'digits_formal'
title = 'Digits, ViT 64 wide and 3 deep, trained from scratch'
base = '../lm4ve/vit-demo_none_digits.py'
metric = 'accuracy/top1'

_block = dict(config='../lm4ve/vit-demo_minilm_digits.py')
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
