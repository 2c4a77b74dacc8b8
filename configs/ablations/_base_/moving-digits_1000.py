# Moving digits on an eighth of the full training's clips, for all 7 epochs.
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
