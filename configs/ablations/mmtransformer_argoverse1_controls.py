# The paper's second motion model on Argoverse 1: the controls.
_base_ = './_base_/paper_controls.py'

name = 'mmtransformer_argoverse1_controls'
title = 'Argoverse 1 (validation), mmTransformer: controls'
base = '../motion/mmtransformer_argoverse1.py'
metric = 'motion/minFDE@6'
# Metres: the smaller of the paper's two gains, 1.10 to 1.08 and 1.23 to 1.20.
margin = 0.02
greater_is_better = False

_block = '../motion/mmtransformer_llama_argoverse1.py'
variants = {
    'frozen pre-trained': dict(config=_block),
    'frozen random': dict(config=_block),
    'trained random': dict(config=_block),
    'MLP': dict(config=_block),
}

published = dict(
    source='arXiv 2310.12973, one training each',
    scores={
        'none': {'motion/minADE@6': 0.72, 'motion/minFDE@6': 1.1, 'motion/MR@6': 0.107},
        'frozen pre-trained': {
            'motion/minADE@6': 0.71,
            'motion/minFDE@6': 1.08,
            'motion/MR@6': 0.105,
        },
        'trained random': {
            'motion/minADE@6': 0.74,
            'motion/minFDE@6': 1.15,
            'motion/MR@6': 0.115,
        },
        'MLP': {'motion/minADE@6': 0.74, 'motion/minFDE@6': 1.16, 'motion/MR@6': 0.118},
    },
)
