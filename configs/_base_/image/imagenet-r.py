# ImageNet-R (30,000 images of 200 classes), scored among those classes.
# data/imagenet-r/<wnid>/*.jpg
_base_ = './imagenet-a.py'

variant = dict(variant='r', data_root='data/imagenet-r')
