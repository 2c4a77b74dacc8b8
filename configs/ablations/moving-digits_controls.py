# Video (moving digits): the controls, on an eighth of the full training's clips.
_base_ = ['./_base_/demo_controls.py', './_base_/moving-digits_1000.py']

name = 'moving-digits_controls'
title = 'Moving digits, ViT 64 wide and 3 deep on tubes'
base = '../video/videomae-demo_none_moving-digits.py'

_block = '../video/videomae-demo_minilm_moving-digits.py'
variants = {
    'frozen pre-trained': dict(config=_block),
    'frozen random': dict(config=_block),
    'trained random': dict(config=_block),
    'MLP': dict(config=_block),
}
# Parts of the training clips, which share no scan.
tune = dict(
    values=(3e-4, 1e-3, 3e-3, 6e-3),
    options={
        'train_dataloader.dataset.split': 'fit',
        'train_dataloader.dataset.split_seed': '{seed}',
        'test_dataloader.dataset.split': 'val',
        'test_dataloader.dataset.split_seed': '{seed}',
    },
)
