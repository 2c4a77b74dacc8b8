# The paper's model of image-text retrieval, on Flickr30k's test images: the controls.
_base_ = './_base_/paper_controls.py'

name = 'meter_flickr30k_controls'
title = 'Flickr30k, METER: controls'
base = '../vqa/meter_flickr30k.py'
metric = 'retrieval/mean'

_block = '../vqa/meter_llama_flickr30k.py'
variants = {
    'frozen pre-trained': dict(config=_block),
    'frozen random': dict(config=_block),
    'trained random': dict(config=_block),
    'MLP': dict(config=_block),
}

published = dict(
    source='arXiv 2310.12973, image retrieval, one training each',
    scores={
        'none': {
            'retrieval/text_to_image/R@1': 49.66,
            'retrieval/text_to_image/R@5': 80.86,
            'retrieval/text_to_image/R@10': 89.48,
        },
        'frozen pre-trained': {
            'retrieval/text_to_image/R@1': 50.22,
            'retrieval/text_to_image/R@5': 82.26,
            'retrieval/text_to_image/R@10': 90.08,
        },
        'trained random': {
            'retrieval/text_to_image/R@1': 49.8,
            'retrieval/text_to_image/R@5': 81.62,
            'retrieval/text_to_image/R@10': 89.72,
        },
        'MLP': {
            'retrieval/text_to_image/R@1': 49.48,
            'retrieval/text_to_image/R@5': 81.12,
            'retrieval/text_to_image/R@10': 89.58,
        },
    },
)
