# Point clouds (primitives): is a training with a block that evaluation leaves out
# better than one without? The budget is that of the controls, whose trials serve here
# where the rate is the same.
_base_ = './primitives_controls.py'

name = 'primitives_branch'
title = 'Primitives: the block in training only'
subject = ''  # not that of the controls
reference = 'none'

_block = '../pointcloud/pointbert-demo_minilm_primitives.py'
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
# One seed's 200 objects do not tell rates apart.
tune = dict(seeds=2)
