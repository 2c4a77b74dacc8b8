# The paper's point-cloud model on ModelNet40 with 1,024 points a cloud.
name = 'pointbert_modelnet40-1k_paper'
title = 'ModelNet40, 1k points, Point-BERT: the paper'
base = '../pointcloud/pointbert_modelnet40-1k.py'
metric = 'accuracy/overall'
seeds = 3
subject = 'LLaMA'

variants = {
    'none': dict(),
    'LLaMA': dict(config='../pointcloud/pointbert_llama_modelnet40-1k.py'),
}

published = dict(
    source='arXiv 2310.12973, one training each',
    scores={
        'none': {'accuracy/overall': 92.67},
        'LLaMA': {'accuracy/overall': 92.42},
    },
)
