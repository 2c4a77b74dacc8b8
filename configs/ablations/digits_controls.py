# Real digits: does the block help, and do its pre-trained weights matter? The
# demo's own training, all 100 epochs.
_base_ = './_base_/demo_controls.py'

name = 'digits_controls'
title = 'Digits, ViT 64 wide and 3 deep'
base = '../lm4ve/vit-demo_none_digits.py'
metric = 'accuracy/top1'

_block = '../lm4ve/vit-demo_minilm_digits.py'
variants = {
    'frozen pre-trained': dict(config=_block),
    'frozen random': dict(config=_block),
    'trained random': dict(config=_block),
    'MLP': dict(config=_block),
}
# Variants differ in the rate from which they learn nothing (.002 to .01): a coarse
# list would decide the comparison.
tune = dict(
    values=(1e-3, 2e-3, 3e-3, 1e-2),
    options={
        'train_dataloader.dataset.split': 'fit',
        'train_dataloader.dataset.split_seed': '{seed}',
        'test_dataloader.dataset.split': 'val',
        'test_dataloader.dataset.split_seed': '{seed}',
    },
)
