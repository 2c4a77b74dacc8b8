# The paper's point-cloud model on ScanObjectNN: the controls.
name = 'pointbert_scanobjectnn_controls'
title = 'ScanObjectNN (hardest), Point-BERT: controls'
base = '../pointcloud/pointbert_scanobjectnn-hardest.py'
metric = 'accuracy/overall'
seeds = 3
reference = 'frozen pre-trained'

variants = {
    'none': dict(),
    'frozen pre-trained': dict(config='../pointcloud/pointbert_llama_scanobjectnn-hardest.py'),
    'frozen random': dict(
        config='../pointcloud/pointbert_llama-randinit-frozen_scanobjectnn-hardest.py',
        options={'model.neck.block.seed': '{seed}'},
    ),
    'trained random': dict(
        config='../pointcloud/pointbert_llama-randinit-trained_scanobjectnn-hardest.py',
        options={'model.neck.block.seed': '{seed}'},
    ),
    'MLP': dict(config='../pointcloud/pointbert_mlp_scanobjectnn-hardest.py'),
}
