# ViT-S on RetinaMNIST by DeiT's recipe, as LLMBoostMedical (arXiv 2403.17343) trains
# it: batch 128, 400 epochs. Another set: --cfg-options of `flag` in the three data
# sets, and of the classes.
_base_ = 'lm4ve::lm4ve/vit-s_in1k.py'

custom_imports = dict(imports=['lm4ve.openmmlab', 'llm4seg'])
num_classes = 5
data_preprocessor = dict(num_classes=num_classes)
model = dict(head=dict(num_classes=num_classes))
medmnist = dict(
    _delete_=True, type='lm4ve.MedMNIST', data_root='data/medmnist', flag='retinamnist'
)
train_dataloader = dict(
    batch_size=128,
    dataset=dict(**medmnist, split='train', pipeline=_base_.train_pipeline[1:]),
)
val_dataloader = dict(
    dataset=dict(**medmnist, split='val', pipeline=_base_.test_pipeline[1:])
)
test_dataloader = dict(
    dataset=dict(**medmnist, split='test', pipeline=_base_.test_pipeline[1:])
)
val_evaluator = dict(_delete_=True, type='lm4ve.MedMNISTMetric')
test_evaluator = val_evaluator
optim_wrapper = dict(optimizer=dict(lr=1.25e-4))
auto_scale_lr = dict(base_batch_size=128)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=0.008,
        by_epoch=True,
        end=5,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        eta_min=1e-5,
        T_max=395,
        by_epoch=True,
        begin=5,
        end=400,
    ),
]
train_cfg = dict(max_epochs=400, val_interval=10)
