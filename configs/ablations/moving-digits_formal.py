# Moving digits: does a block without language help as much? On an eighth of the full
# training's clips: with all of them 99.6 % without a block leave no room for a point.
_base_ = ['./_base_/formal_controls.py', './_base_/moving-digits_1000.py']

name = 'moving-digits_formal'
title = 'Moving digits, ViT 64 wide and 3 deep on tubes, 1,000 clips'
base = '../video/videomae-demo_none_moving-digits.py'

_block = dict(config='../video/videomae-demo_minilm_moving-digits.py')
variants = {
    'frozen pre-trained': _block,
    'frozen random': _block,
    'Dyck': _block,
    'attention layer': _block,
}
# Parts of the training clips, which share no scan.
tune = dict(
    values=(3e-4, 1e-3, 2e-3, 3e-3, 6e-3, 1.2e-2),
    options={
        'train_dataloader.dataset.split': 'fit',
        'train_dataloader.dataset.split_seed': '{seed}',
        'test_dataloader.dataset.split': 'val',
        'test_dataloader.dataset.split_seed': '{seed}',
    },
)
