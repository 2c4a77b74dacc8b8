# Motion forecasting (simulated traffic): is a training with a block that evaluation
# leaves out better than one without? The budget is that of the controls, whose trials
# serve here where the rate is the same.
_base_ = './sim_controls.py'

name = 'sim_branch'
title = 'Simulated traffic: the block in training only'
subject = ''  # not that of the controls
reference = 'none'

_block = '../motion/vectornet-demo_minilm_sim.py'
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
# All are worse at 0.012; one seed's 160 scenes do not tell rates apart.
tune = dict(values=(1e-3, 3e-3, 6e-3), seeds=4)
