# Visual question answering (easy-vqa): the controls, with the demo's own training.
_base_ = './_base_/demo_controls.py'

name = 'easy-vqa_controls'
title = 'easy-vqa, METER 64 wide'
base = '../vqa/meter-demo_none_easy-vqa.py'
metric = 'vqa/overall'

_block = '../vqa/meter-demo_minilm_easy-vqa.py'
variants = {
    'frozen pre-trained': dict(config=_block),
    'frozen random': dict(config=_block),
    'trained random': dict(config=_block),
    'MLP': dict(config=_block),
}
tune = dict(
    fields=('optim_wrapper.optimizer.lr',),
    values=(3e-4, 1e-3, 3e-3),
    options={
        'train_dataloader.dataset.split': 'fit',
        'test_dataloader.dataset.split': 'val',
    },
)
