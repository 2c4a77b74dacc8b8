# A 3D ViT on the brain tumours of MSD, MedVisionLlama's baseline: Adam 2e-3, batch 4,
# 100 epochs, and half the rate when the validation loss rests, here a cosine.
_base_ = ['../_base_/default_runtime.py', '../_base_/medical/brain-tumour.py']

model = dict(
    type='lm4ve.VolumeSegmentor', backbone=dict(type='lm4ve.VolumeViT'), num_classes=2
)
optim_wrapper = dict(optimizer=dict(type='Adam', lr=2e-3))
param_scheduler = dict(
    type='CosineAnnealingLR', T_max=100, by_epoch=True, convert_to_iter_based=True
)
train_cfg = dict(by_epoch=True, max_epochs=100, val_interval=5)
val_cfg = dict()
test_cfg = dict()
