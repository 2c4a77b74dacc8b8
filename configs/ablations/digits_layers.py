# Real digits: which of MiniLM's six layers, each frozen and pre-trained?
_base_ = './digits_controls.py'

name = 'digits_layers'
title = "Digits: each of all-MiniLM-L6-v2's layers, frozen"
base = '../lm4ve/vit-demo_minilm_digits.py'
subject = ''  # not that of the controls
reference = 'layer 5'

# No variant of the controls chose .01.
tune = dict(values=(1e-3, 2e-3, 3e-3))

# The last one is the config's own, so that its trials are those of the controls.
variants = dict(
    _delete_=True,
    **{f'layer {i}': dict(options={'model.neck.block.layers': (i,)}) for i in range(5)},
    **{'layer 5': dict()},
)
