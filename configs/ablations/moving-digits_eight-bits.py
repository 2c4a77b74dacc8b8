# Moving digits: do products in 8 bits cost accuracy? At the rate that was tuned for fp32.
_base_ = './_base_/eight_bits.py'

name = 'moving-digits_eight-bits'
title = 'Moving digits, the frozen block in 8 bits'
base = '../video/videomae-demo_minilm_moving-digits.py'
metric = 'acc/top1'

_epochs = 7
_clips = dict(train=1000, val=400, test=400)
_root = 'data/moving-digits-1000'
common = {
    'optim_wrapper.optimizer.lr': 1e-3,
    'param_scheduler.eta_max': 1e-3,
    'train_cfg.max_epochs': _epochs,
    'param_scheduler.total_steps': _epochs,
    'train_dataloader.dataset.clips': _clips,
    'train_dataloader.dataset.data_root': _root,
    'train_dataloader.num_workers': 0,
    'test_dataloader.dataset.clips': _clips,
    'test_dataloader.dataset.data_root': _root,
    'test_dataloader.num_workers': 0,
}
