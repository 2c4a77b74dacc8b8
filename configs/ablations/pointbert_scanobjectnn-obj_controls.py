# The paper's point-cloud model on ScanObjectNN's objects alone: the controls.
_base_ = './_base_/paper_controls.py'

name = 'pointbert_scanobjectnn-obj_controls'
title = 'ScanObjectNN (OBJ-ONLY), Point-BERT: controls'
base = '../pointcloud/pointbert_scanobjectnn-obj.py'
metric = 'accuracy/overall'

_folder = '../pointcloud/pointbert_'
variants = {
    'frozen pre-trained': dict(config=_folder + 'llama_scanobjectnn-obj.py'),
    'frozen random': dict(config=_folder + 'llama-randinit-frozen_scanobjectnn-obj.py'),
    'trained random': dict(
        config=_folder + 'llama-randinit-trained_scanobjectnn-obj.py'
    ),
    'MLP': dict(config=_folder + 'mlp_scanobjectnn-obj.py'),
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
