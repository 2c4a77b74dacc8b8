# The paper's motion model on Argoverse 1: the controls.
_base_ = './_base_/paper_controls.py'

name = 'vectornet_argoverse1_controls'
title = 'Argoverse 1 (validation), VectorNet: controls'
base = '../motion/vectornet_argoverse1.py'
metric = 'motion/minFDE@6'
# Metres: the smaller of the paper's two gains, 1.10 to 1.08 and 1.23 to 1.20.
margin = 0.02
greater_is_better = False

_block = '../motion/vectornet_llama_argoverse1.py'
variants = {
    'frozen pre-trained': dict(config=_block),
    'frozen random': dict(config=_block),
    'trained random': dict(config=_block),
    'MLP': dict(config=_block),
}

published = dict(
    source='arXiv 2310.12973, one training each',
    scores={
        'none': {
            'motion/minADE@6': 0.77,
            'motion/minFDE@6': 1.23,
            'motion/MR@6': 0.132,
        },
        'frozen pre-trained': {
            'motion/minADE@6': 0.76,
            'motion/minFDE@6': 1.2,
            'motion/MR@6': 0.127,
        },
    },
)
