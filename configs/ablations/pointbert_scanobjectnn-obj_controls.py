# The paper's point-cloud model on ScanObjectNN's objects alone: the controls.
_base_ = './_base_/paper_controls.py'

name = 'pointbert_scanobjectnn-obj_controls'
title = 'ScanObjectNN (OBJ-ONLY), Point-BERT: controls'
base = '../pointcloud/pointbert_scanobjectnn-obj.py'
metric = 'accuracy/overall'

_block = '../pointcloud/pointbert_llama_scanobjectnn-obj.py'
variants = {
    'frozen pre-trained': dict(config=_block),
    'frozen random': dict(config=_block),
    'trained random': dict(config=_block),
    'MLP': dict(config=_block),
}

published = dict(
    source='arXiv 2310.12973, OBJ-ONLY, one training each',
    scores={
        'none': {'accuracy/overall': 88.1},
        'frozen pre-trained': {'accuracy/overall': 88.5},
        'trained random': {'accuracy/overall': 88.0},
        'MLP': {'accuracy/overall': 87.3},
    },
)
