# Moving digits: does a block without language help as much? The demo's own training:
# 8,000 clips, all 7 epochs. The rate is tuned on 1,000 clips, since tuning on all takes
# hours.
_base_ = './_base_/formal_controls.py'

name = 'moving-digits_formal'
title = 'Moving digits, ViT 64 wide and 3 deep on tubes, trained from scratch'
base = '../video/videomae-demo_none_moving-digits.py'
metric = 'acc/top1'

common = {'train_dataloader.num_workers': 0, 'test_dataloader.num_workers': 0}
_block = dict(config='../video/videomae-demo_minilm_moving-digits.py')
variants = {
    'frozen pre-trained': _block,
    'frozen random': _block,
    'Dyck': _block,
    'attention layer': _block,
}
_tuned = {
    f'{part}_dataloader.dataset.{field}': value
    for part in ('train', 'test')
    for field, value in dict(
        clips=dict(train=1000, val=400, test=400), data_root='data/moving-digits-1000'
    ).items()
}
tune = dict(
    values=(3e-4, 1e-3, 3e-3, 6e-3),
    options={**_tuned, 'test_dataloader.dataset.split': 'val'},
)
