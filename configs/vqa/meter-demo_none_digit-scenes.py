# The embedded scenes of digits: a small METER without a block ranks captions and
# images.
_base_ = [
    '../_base_/vqa/meter-demo.py',
    '../_base_/vqa/digit-scenes.py',
    '../_base_/vqa/cosine_5e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    # Measured on the training split.
    data_preprocessor=dict(mean=[29.1] * 3, std=[54.6] * 3),
    image_encoder=dict(img_size=48),
    head=dict(type='lm4ve.RetrievalHead', in_channels=128),
)
optim_wrapper = dict(paramwise_cfg=dict(head=0.6, cross_modal=0.6, neck=0.6))
val_cfg = dict(type='lm4ve.RetrievalValLoop', pairs_per_batch=512)
test_cfg = dict(type='lm4ve.RetrievalTestLoop', pairs_per_batch=512)
