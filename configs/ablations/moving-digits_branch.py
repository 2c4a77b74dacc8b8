# Video (moving digits): is a training with a block that evaluation leaves out better
# than one without? The budget is that of the controls, whose trials serve here where
# the rate is the same.
_base_ = './moving-digits_controls.py'

name = 'moving-digits_branch'
title = 'Moving digits: the block in training only'
subject = ''  # not that of the controls
reference = 'none'

_block = '../video/videomae-demo_minilm_moving-digits.py'
_branch = {'model.neck.branch': True}
_random = {'model.neck.block.pretrained': False, 'model.neck.block.seed': '{seed}'}
variants = dict(
    _delete_=True,
    **{
        'none': dict(),
        'frozen pre-trained': dict(config=_block),
        'branch, frozen pre-trained': dict(config=_block, options=_branch),
        'branch, frozen random': dict(config=_block, options={**_branch, **_random}),
    },
)
# 'None' takes the largest rate of the controls; a larger one is tried here.
tune = dict(values=(1e-3, 3e-3, 6e-3, 1.2e-2), seeds=2)
