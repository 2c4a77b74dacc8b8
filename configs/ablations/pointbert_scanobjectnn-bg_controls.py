# The paper's point-cloud model on ScanObjectNN's objects with background: the controls.
_base_ = './_base_/paper_controls.py'

name = 'pointbert_scanobjectnn-bg_controls'
title = 'ScanObjectNN (OBJ-BG), Point-BERT: controls'
base = '../pointcloud/pointbert_scanobjectnn-bg.py'
metric = 'accuracy/overall'

_block = '../pointcloud/pointbert_llama_scanobjectnn-bg.py'
variants = {
    'frozen pre-trained': dict(config=_block),
    'frozen random': dict(config=_block),
    'trained random': dict(config=_block),
    'MLP': dict(config=_block),
}

published = dict(
    source='arXiv 2310.12973, OBJ-BG, one training each',
    scores={
        'none': {'accuracy/overall': 87.4},
        'frozen pre-trained': {'accuracy/overall': 88.0},
        'trained random': {'accuracy/overall': 87.2},
        'MLP': {'accuracy/overall': 86.5},
    },
)
