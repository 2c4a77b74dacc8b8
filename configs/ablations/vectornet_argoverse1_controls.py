# The paper's motion model on Argoverse 1: the controls.
name = 'vectornet_argoverse1_controls'
title = 'Argoverse 1 (validation), VectorNet: controls'
base = '../motion/vectornet_argoverse1.py'
metric = 'motion/minFDE@6'
greater_is_better = False
seeds = 3
reference = 'frozen pre-trained'

variants = {
    'none': dict(),
    'frozen pre-trained': dict(config='../motion/vectornet_llama_argoverse1.py'),
    'frozen random': dict(
        config='../motion/vectornet_llama-randinit-frozen_argoverse1.py',
        options={'model.neck.block.seed': '{seed}'},
    ),
    'trained random': dict(
        config='../motion/vectornet_llama-randinit-trained_argoverse1.py',
        options={'model.neck.block.seed': '{seed}'},
    ),
    'MLP': dict(config='../motion/vectornet_mlp_argoverse1.py'),
}
