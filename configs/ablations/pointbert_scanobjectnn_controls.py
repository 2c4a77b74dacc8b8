# The paper's point-cloud model on ScanObjectNN: the controls.
_base_ = './_base_/paper_controls.py'

name = 'pointbert_scanobjectnn_controls'
title = 'ScanObjectNN (hardest), Point-BERT: controls'
base = '../pointcloud/pointbert_scanobjectnn-hardest.py'
metric = 'accuracy/overall'

variants = {
    'frozen pre-trained': dict(
        config='../pointcloud/pointbert_llama_scanobjectnn-hardest.py'
    ),
    'frozen random': dict(
        config='../pointcloud/pointbert_llama-randinit-frozen_scanobjectnn-hardest.py'
    ),
    'trained random': dict(
        config='../pointcloud/pointbert_llama-randinit-trained_scanobjectnn-hardest.py'
    ),
    'MLP': dict(config='../pointcloud/pointbert_mlp_scanobjectnn-hardest.py'),
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
