# COCO with Karpathy's splits: images and captions search for each other.
#   data/coco/{train2014,val2014}/*.jpg, data/coco/dataset_coco.json
# A validation scores 5,000 images with 25,000 captions, 125 million pairs. 'restval' are
# images of val2014 that one trains on as well.
_base_ = './flickr30k.py'

_coco = dict(
    data_root='data/coco', data_prefix=dict(img_path=''), ann_file='dataset_coco.json'
)
train_dataloader = dict(dataset=dict(split=('train', 'restval'), **_coco))
val_dataloader = dict(dataset=_coco)
test_dataloader = dict(dataset=_coco)
