# Real digits: which of SmolLM2-135M's thirty layers, each frozen and pre-trained?
_base_ = './digits_layers.py'

name = 'digits_smollm2_layers'
title = "Digits: each of SmolLM2-135M's layers, frozen"
base = '../lm4ve/vit-demo_smollm2_digits.py'
reference = 'layer 29'

# The last one is the config's own.
variants = dict(
    _delete_=True,
    **{
        f'layer {i}': dict(options={'model.neck.block.layers': (i,)}) for i in range(29)
    },
    **{'layer 29': dict()},
)
