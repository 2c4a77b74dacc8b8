# The paper's model of image-text retrieval, on Flickr30k's test images: the controls.
_base_ = './_base_/paper_controls.py'

name = 'meter_flickr30k_controls'
title = 'Flickr30k, METER: controls'
base = '../vqa/meter_flickr30k.py'
metric = 'retrieval/mean'

variants = {
    'frozen pre-trained': dict(config='../vqa/meter_llama_flickr30k.py'),
    'frozen random': dict(config='../vqa/meter_llama-randinit-frozen_flickr30k.py'),
    'trained random': dict(config='../vqa/meter_llama-randinit-trained_flickr30k.py'),
    'MLP': dict(config='../vqa/meter_mlp_flickr30k.py'),
}
