# ImageNet-Sketch (50,889 images of all 1,000 classes).
# data/imagenet-sketch/sketch/<wnid>/*.JPEG, as its archive unpacks
_base_ = './imagenet-a.py'

variant = dict(variant='sketch', data_root='data/imagenet-sketch', data_prefix='sketch')
variant_evaluator = dict(type='Accuracy')
