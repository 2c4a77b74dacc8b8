# Video (moving digits) with 256 tokens: what a training loses whose steps compute some
# of the block's tokens. Clips, epochs and rates are those of the controls.
_base_ = './moving-digits_controls.py'

name = 'moving-digits_train-queries'
title = 'Moving digits, 256 tokens: tokens that a training step computes'
base = '../video/videomae-demo_minilm_moving-digits.py'
reference = 'all'

common = {'model.backbone.patch_size': 4, 'model.backbone.tubelet_size': 2}
_field = 'model.neck.train_queries'
variants = dict(
    _delete_=True,
    **{
        'all': dict(),
        'a quarter': dict(options={_field: 0.25}),
        'an eighth': dict(options={_field: 0.125}),
        'an eighth, growing to all': dict(
            options={_field: dict(fraction=(0.125, 1.0))}
        ),
    },
)
tune = None
