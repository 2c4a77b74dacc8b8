# The paper's point-cloud model on ScanObjectNN: the controls.
_base_ = './_base_/paper_controls.py'

name = 'pointbert_scanobjectnn_controls'
title = 'ScanObjectNN (hardest), Point-BERT: controls'
base = '../pointcloud/pointbert_scanobjectnn-hardest.py'
metric = 'accuracy/overall'

_block = '../pointcloud/pointbert_llama_scanobjectnn-hardest.py'
variants = {
    'frozen pre-trained': dict(config=_block),
    'frozen random': dict(config=_block),
    'trained random': dict(config=_block),
    'MLP': dict(config=_block),
}

published = dict(
    source='arXiv 2310.12973, PB-T50-RS, one training each',
    scores={
        'none': {'accuracy/overall': 83.1},
        'frozen pre-trained': {'accuracy/overall': 83.8},
        'trained random': {'accuracy/overall': 82.6},
        'MLP': {'accuracy/overall': 83.4},
    },
)
