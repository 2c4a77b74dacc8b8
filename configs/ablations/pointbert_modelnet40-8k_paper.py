# The paper's point-cloud model on ModelNet40 with 8,192 points a cloud.
name = 'pointbert_modelnet40-8k_paper'
title = 'ModelNet40, 8k points, Point-BERT: the paper'
base = '../pointcloud/pointbert_modelnet40-8k.py'
metric = 'accuracy/overall'
seeds = 3
subject = 'LLaMA'

variants = {
    'none': dict(),
    'LLaMA': dict(config='../pointcloud/pointbert_llama_modelnet40-8k.py'),
}

published = dict(
    source='arXiv 2310.12973, one training each',
    scores={
        'none': {'accuracy/overall': 93.19},
        'LLaMA': {'accuracy/overall': 93.56},
    },
)
