# The paper's model of visual question answering, on VQAv2's validation set: the
# controls.
_base_ = './_base_/paper_controls.py'

name = 'meter_vqav2_controls'
title = 'VQAv2 (validation), METER: controls'
base = '../vqa/meter_vqav2.py'
metric = 'vqa/overall'

_block = '../vqa/meter_llama_vqav2.py'
variants = {
    'frozen pre-trained': dict(config=_block),
    'frozen random': dict(config=_block),
    'trained random': dict(config=_block),
    'MLP': dict(config=_block),
}

published = dict(
    source='arXiv 2310.12973, on test-dev, one training each',
    scores={
        'none': {
            'vqa/overall': 69.6,
            'vqa/yes-no': 85.08,
            'vqa/number': 47.82,
            'vqa/other': 61.37,
        },
        'frozen pre-trained': {
            'vqa/overall': 70.23,
            'vqa/yes-no': 85.7,
            'vqa/number': 48.98,
            'vqa/other': 61.89,
        },
    },
)
