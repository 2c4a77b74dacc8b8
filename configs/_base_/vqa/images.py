# What becomes of pixels in METER's fine-tuning: the shorter side is resized bicubically
# and the middle is cut out. In training two of fourteen operations come first
# (RandAugment, level 9 of 30; its shifts are 30 pixels of the picture as it is stored).
# One override changes the size of images and model alike:
#   --cfg-options image_size=384
image_size = 224

_level = dict(prob=1.0)
_turned = dict(prob=1.0, random_negative_prob=0.5)
_across = dict(direction='horizontal', **_turned)
_down = dict(direction='vertical', **_turned)
_colored = dict(prob=1.0, random_negative_prob=0.0, magnitude_range=(-0.9, 0.9))
test_pipeline = [
    dict(type='mmpretrain.LoadImageFromFile'),
    dict(
        type='mmpretrain.ResizeEdge',
        scale=224,
        edge='short',
        backend='pillow',
        interpolation='bicubic',
    ),
    dict(type='mmpretrain.CenterCrop', crop_size=224),
    dict(type='lm4ve.PackVisionLanguage'),
]
train_pipeline = [
    test_pipeline[0],
    dict(
        type='mmpretrain.RandAugment',
        num_policies=2,
        magnitude_level=9,
        total_level=30,
        hparams=dict(pad_val=0, interpolation='nearest'),
        policies=[
            dict(type='mmpretrain.AutoContrast', **_level),
            dict(type='mmpretrain.Equalize', **_level),
            dict(type='mmpretrain.Rotate', magnitude_range=(0, 30), **_turned),
            dict(type='mmpretrain.Posterize', bits=1, **_level),
            dict(type='mmpretrain.Solarize', magnitude_range=(0, 256), **_level),
            dict(type='lm4ve.SolarizeAdd', magnitude_range=(0, 110), **_level),
            dict(type='mmpretrain.ColorTransform', **_colored),
            dict(type='mmpretrain.Contrast', **_colored),
            dict(type='mmpretrain.Brightness', **_colored),
            dict(type='mmpretrain.Sharpness', **_colored),
            dict(type='mmpretrain.Shear', magnitude_range=(0, 0.3), **_across),
            dict(type='mmpretrain.Shear', magnitude_range=(0, 0.3), **_down),
            dict(type='lm4ve.TranslateByPixels', magnitude_range=(0, 100), **_across),
            dict(type='lm4ve.TranslateByPixels', magnitude_range=(0, 100), **_down),
        ],
    ),
    *test_pipeline[1:],
]
