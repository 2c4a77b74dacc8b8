# Retrieval (scenes of digits): the controls, with the demo's own training.
_base_ = './_base_/demo_controls.py'

name = 'digit-scenes_controls'
title = 'Scenes of digits, METER 64 wide'
base = '../vqa/meter-demo_none_digit-scenes.py'
metric = 'retrieval/mean'

_block = '../vqa/meter-demo_minilm_digit-scenes.py'
variants = {
    'frozen pre-trained': dict(config=_block),
    'frozen random': dict(config=_block),
    'trained random': dict(config=_block),
    'MLP': dict(config=_block),
}
tune = dict(
    fields=('optim_wrapper.optimizer.lr',),
    values=(3e-4, 1e-3, 3e-3),
    options={'test_dataloader.dataset.split': 'val'},
)
