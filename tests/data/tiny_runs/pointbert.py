# Point-BERT with a frozen block, whose group encoder has another width than the ViT; 30
# shapes.
_base_ = './runtime.py'

default_scope = 'mmengine'
vit = dict(
    embed_dims=16,
    depth=2,
    num_heads=2,
    mlp_ratio=2.0,
    drop_path_rate=0.0,
    init_cfg=None,
)
groups = dict(num_groups=6, group_size=8, encoder_channels=(4, 6, 8))
head = dict(hidden=(12,), dropout=0.2, label_smoothing=0.1, init_cfg=None)
model = dict(
    type='lm4ve.PointCloudClassifier',
    backbone=dict(
        type='lm4ve.PointBERT', encoder_dims=8, final_norm=False, **vit, **groups
    ),
    neck=dict(**_base_.llm_neck, in_channels=16, norm_cfg=dict(type='LN', eps=1e-5)),
    head=dict(type='lm4ve.PointClsHead', in_channels=16, num_classes=10, **head),
)
sample = dict(type='lm4ve.SamplePoints', num=48, method='first')
shapes = dict(split='train', per_class=3, num_points=48, cache_dir='points')
steps = [sample, dict(type='lm4ve.PackPointCloud')]
data = dict(type='lm4ve.PrimitivesDataset', pipeline=steps, **shapes)
train_dataloader = dict(
    batch_size=8, drop_last=True, dataset=data, sampler=_base_.shuffled
)
val_dataloader = test_dataloader = dict(
    batch_size=15, dataset=data, sampler=_base_.in_order
)
val_evaluator = test_evaluator = dict(type='lm4ve.PointCloudAccuracy')
optim_wrapper = dict(optimizer=dict(lr=0.5))
