# The same model on a folder of your own: pictures in images/{train,val}, and masks
# of the same names in masks/{train,val}, PNG files whose pixels are class numbers
# (255: ignored). Set data_root, the names of the classes and their number.
_base_ = ['upernet_swin-t_llama_ade20k.py']

data_root = 'data/masks'
classes = ('background', 'object')
metainfo = dict(classes=classes, palette=[[0, 0, 0], [220, 60, 60]])
train_pipeline = _base_.train_pipeline
train_pipeline[1] = dict(type='LoadAnnotations')
test_pipeline = _base_.test_pipeline
test_pipeline[2] = dict(type='LoadAnnotations')


def _part(split, pipeline):
    return dict(
        _delete_=True,
        type='lm4ve.CheckedSegDataset',
        data_root=data_root,
        metainfo=metainfo,
        img_suffix='.jpg',
        data_prefix=dict(img_path=f'images/{split}', seg_map_path=f'masks/{split}'),
        pipeline=pipeline,
    )


model = dict(
    decode_head=dict(num_classes=len(classes)),
    auxiliary_head=dict(num_classes=len(classes)),
)
train_dataloader = dict(dataset=_part('train', train_pipeline))
val_dataloader = dict(dataset=_part('val', test_pipeline))
test_dataloader = dict(dataset=_part('val', test_pipeline))
