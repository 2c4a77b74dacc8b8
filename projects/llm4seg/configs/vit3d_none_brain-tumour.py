# A 3D ViT on the brain tumours of MSD, MedVisionLlama's baseline: Adam 2e-3, batch 4, 100
# epochs. It does not follow the released recipe, which is in
# vit3d_llama-3.1-8b-released_brain-tumour.py with its defects. Here Dice is that of
# probabilities and has a gradient, the rate falls by a cosine, the last epoch counts, a
# third of the volumes is turned and a third changed, each label with its image. 100 epochs
# are 8,700 steps of four volumes; there they are 26,200, since an epoch has each volume
# three times (348 of 484 volumes train).
_base_ = ['lm4ve::_base_/default_runtime.py', './_base_/brain-tumour.py']

custom_imports = dict(imports=['lm4ve.openmmlab', 'llm4seg'])
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
