# Video (moving digits): the controls, on an eighth of the full training's clips.
_base_ = './_base_/demo_controls.py'

name = 'moving-digits_controls'
title = 'Moving digits, ViT 64 wide and 3 deep on tubes'
base = '../video/videomae-demo_none_moving-digits.py'
metric = 'acc/top1'

_epochs = 7
_clips = dict(train=1000, val=400, test=400)
_root = 'data/moving-digits-1000'
common = {
    'train_cfg.max_epochs': _epochs,
    'param_scheduler.total_steps': _epochs,
    'train_dataloader.dataset.clips': _clips,
    'train_dataloader.dataset.data_root': _root,
    'train_dataloader.num_workers': 0,
    'test_dataloader.dataset.clips': _clips,
    'test_dataloader.dataset.data_root': _root,
    'test_dataloader.num_workers': 0,
}
_block = '../video/videomae-demo_minilm_moving-digits.py'
variants = {
    'frozen pre-trained': dict(config=_block),
    'frozen random': dict(config=_block),
    'trained random': dict(config=_block),
    'MLP': dict(
        config=_block,
        options={'model.neck.block': dict(_delete_=True, type='MLPBlock', embed_dims=384)},
    ),
}
# The validation clips show scans that are in neither of the other splits.
tune = dict(values=(3e-4, 1e-3, 3e-3, 6e-3), options={'test_dataloader.dataset.split': 'val'})
