# MedVisionLlama on the spleens of MSD: CT with one channel. Other tasks differ in the
# same fields.
_base_ = './vit3d_llama-3.1-8b_brain-tumour.py'

load = dict(type='lm4ve.LoadVolume', channels=1, num_classes=2)
data = dict(data_root='data/msd/Task09_Spleen')
train_dataloader = dict(
    dataset=dict(**data, pipeline=[load, *_base_.train_pipeline[1:]])
)
val_dataloader = dict(dataset=dict(**data, pipeline=[load, *_base_.test_pipeline[1:]]))
test_dataloader = val_dataloader
