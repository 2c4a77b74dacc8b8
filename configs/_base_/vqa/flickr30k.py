# Flickr30k with Karpathy's splits: images and captions search for each other.
#   data/flickr30k/flickr30k-images/*.jpg, data/flickr30k/dataset_flickr30k.json
# METER trains on the validation set too, and validates on the test set:
#   --cfg-options train_dataloader.dataset.split="('train','val')" \
#       val_dataloader.dataset.split=test
_base_ = './images.py'

train_dataloader = dict(
    batch_size=32,  # images, each with 16 captions
    num_workers=8,
    dataset=dict(
        type='lm4ve.KarpathyRetrieval',
        data_root='data/flickr30k',
        data_prefix=dict(img_path='flickr30k-images'),
        ann_file='dataset_flickr30k.json',
        split='train',
        test_mode=False,
        num_negatives=15,
        pipeline=_base_.train_pipeline,
    ),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=8,
    dataset=dict(
        type='lm4ve.KarpathyRetrieval',
        data_root='data/flickr30k',
        data_prefix=dict(img_path='flickr30k-images'),
        ann_file='dataset_flickr30k.json',
        split='val',
        pipeline=_base_.test_pipeline,
    ),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
val_evaluator = dict(type='lm4ve.RetrievalRecall', ks=(1, 5, 10))
val_cfg = dict(type='lm4ve.RetrievalValLoop', pairs_per_batch=256)
test_dataloader = dict(
    batch_size=64,
    num_workers=8,
    dataset=dict(val_dataloader['dataset'], split='test'),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
test_evaluator = val_evaluator
test_cfg = dict(type='lm4ve.RetrievalTestLoop', pairs_per_batch=256)
