# Argoverse 2 motion forecasting, as Argoverse 1 but scored by its own convention.
_base_ = './argoverse1.py'

train_dataloader = dict(dataset=dict(cache='data/argoverse2/train.cache'))
val_dataloader = dict(dataset=dict(cache='data/argoverse2/val.cache'))
test_dataloader = val_dataloader
val_evaluator = dict(convention='argoverse2')
test_evaluator = val_evaluator
