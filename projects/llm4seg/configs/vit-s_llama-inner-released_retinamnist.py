# LLMBoostMedical's 2D training as its code runs it (ZhixinLai/LLMBoostMedical, f34c6fb,
# 2D_classification). Each comment names a defect or an accident of that code; in
# vit-s_llama-inner_retinamnist.py there is none of them.
_base_ = './vit-s_llama-inner_retinamnist.py'

# Head, mixed targets and smoothing have 1,000 classes, of which the data has 5
# (datasets.py:132). Accuracy counts all outputs, AUC the first 5 alone (engine.py:198).
num_classes = 1000
data_preprocessor = dict(num_classes=num_classes)
model = dict(head=dict(num_classes=num_classes))
# The pictures of 28 pixels are read from JPEG copies (datasets/data_load.py:53).
jpeg = dict(type='lm4ve.JPEGCopy')
train_pipeline = [jpeg, *_base_.train_dataloader.dataset.pipeline]
test_pipeline = [jpeg, *_base_.test_dataloader.dataset.pipeline]
# The test split validates: the best epoch (main.py:597) and the end of the training
# (main.py:639) are chosen by it, so that its scores are too high. The true validation
# split is only logged there.
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=128, dataset=dict(split='test', pipeline=test_pipeline)
)
test_dataloader = dict(batch_size=128, dataset=dict(pipeline=test_pipeline))
val_evaluator = dict(type='lm4ve.WideHeadMetric')
test_evaluator = val_evaluator
default_hooks = dict(
    checkpoint=dict(save_best=['medmnist/ACC', 'medmnist/AUC'], rule='greater')
)
# It starts from a checkpoint of ImageNet with this block, of which weights are loaded and
# optimizer and schedule are not (main.py:448-451): the paper's ViT-S with LLaMA, without
# a residual there. Make the file by
#   python tools/convert_checkpoint.py image DOWNLOADED \
#       data/pretrained/vit-s_llama_in1k.pth --llm data/llm/llama-7b
load_from = 'data/pretrained/vit-s_llama_in1k.pth'
# Its epochs count on from that checkpoint's (main.py:452). After 300 on ImageNet, of the
# 400 in its README only the last 100 are trained, at the tail of the cosine: from 2.7e-5
# to 1e-5. The first of them has 1e-6, the warm-up's, and the others lag by one epoch.
# With a file of weights alone it trains all 400, after 5 epochs of warm-up, as the
# schedule of vit-s_llama-inner_retinamnist.py does.
param_scheduler = [
    dict(
        type='lm4ve.LateCosineAnnealingLR',
        skipped=299,
        eta_min=1e-5,
        T_max=400,
        by_epoch=True,
        begin=0,
        end=400,
    ),
]
# A training ends where the test loss is the highest of 101 epochs (main.py:648): never
# within 100.
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='lm4ve.HighestLossStopHook', monitor='medmnist/loss', patience=100),
]
train_cfg = dict(max_epochs=100, val_interval=1)
