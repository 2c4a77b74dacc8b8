# Real digits: is a training with a block that evaluation leaves out better than one
# without? The budget, and the trials of the first two variants, are those of the controls.
_base_ = './digits_controls.py'

name = 'digits_branch'
title = 'Digits: the block in training only'
reference = 'none'

_block = '../lm4ve/vit-demo_minilm_digits.py'
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
