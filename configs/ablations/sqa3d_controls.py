# The paper's model of questions about rooms, on SQA3D: the controls.
_base_ = './_base_/paper_controls.py'

name = 'sqa3d_controls'
title = 'SQA3D, ScanQA: controls'
base = '../rooms/sqa3d.py'
metric = 'sqa3d/em@1'

_block = '../rooms/sqa3d_llama.py'
variants = {
    'frozen pre-trained': dict(config=_block),
    'frozen random': dict(config=_block),
    'trained random': dict(config=_block),
    'MLP': dict(config=_block),
}

published = dict(
    source='arXiv 2310.12973, one training each',
    scores={
        'none': {'sqa3d/em@1': 47.2, 'sqa3d/em@10': 86.82},
        'frozen pre-trained': {'sqa3d/em@1': 48.09, 'sqa3d/em@10': 89.03},
        'trained random': {'sqa3d/em@1': 47.26, 'sqa3d/em@10': 88.46},
        'MLP': {'sqa3d/em@1': 47.14, 'sqa3d/em@10': 88.08},
    },
)
