# Real digits: is a training with a block that evaluation leaves out better than one
# without? The budget is that of the controls, whose trials serve here where the rate is
# the same.
_base_ = './digits_controls.py'

name = 'digits_branch'
title = 'Digits: the block in training only'
subject = ''  # not that of the controls
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
# At 0.01 all but 'none' learn nothing; one seed's 252 scans do not tell rates apart.
tune = dict(values=(1e-3, 2e-3, 3e-3), seeds=2)
