# ViViT on FractureMNIST3D as LLMBoostMedical trains it: Adam 1e-5, batch 32, 100
# epochs. The released code keeps the epoch that is best on the test set; this does not.
_base_ = 'lm4ve::_base_/image/runtime.py'

custom_imports = dict(imports=['lm4ve.openmmlab', 'llm4seg'])
data_preprocessor = dict(num_classes=3, mean=[0.0], std=[255.0], to_rgb=False)
model = dict(
    type='ImageClassifier',
    backbone=dict(type='lm4ve.ViViT'),
    neck=None,
    head=dict(type='LinearClsHead', num_classes=3, in_channels=1024, init_cfg=None),
)


def _loader(split):
    return dict(
        batch_size=32,
        num_workers=2,
        collate_fn=dict(type='default_collate'),
        dataset=dict(
            type='lm4ve.MedMNIST',
            data_root='data/medmnist',
            flag='fracturemnist3d',
            split=split,
            pipeline=[dict(type='PackInputs')],
        ),
        sampler=dict(type='DefaultSampler', shuffle=split == 'train'),
    )


train_dataloader = _loader('train')
val_dataloader = _loader('val')
test_dataloader = _loader('test')
val_evaluator = dict(type='lm4ve.MedMNISTMetric')
test_evaluator = val_evaluator
optim_wrapper = dict(optimizer=dict(type='Adam', lr=1e-5))
train_cfg = dict(by_epoch=True, max_epochs=100, val_interval=10)
val_cfg = dict()
test_cfg = dict()
param_scheduler = []
