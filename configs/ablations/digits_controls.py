# Real digits: does the block help, and do its pre-trained weights matter?
name = 'digits_controls'
title = 'Digits, ViT 64 wide and 3 deep'
base = '../lm4ve/vit-demo_none_digits.py'
metric = 'accuracy/top1'
seeds = 8
reference = 'frozen pre-trained'

_epochs = 40
common = {
    'train_cfg.max_epochs': _epochs,
    'param_scheduler.total_steps': _epochs,
    # DeiT's deviation of .02 is small for 64 channels: from it, 40 epochs are too
    # few for every variant.
    'model.init_cfg': [
        dict(type='Xavier', layer='Linear', distribution='uniform'),
        dict(type='Constant', layer='LayerNorm', val=1., bias=0.),
    ],
}
_block = '../lm4ve/vit-demo_minilm_digits.py'
variants = {
    'none': dict(),
    'frozen pre-trained': dict(config=_block),
    'frozen random': dict(
        config=_block,
        options={
            'model.neck.block.pretrained': False,
            'model.neck.block.seed': '{seed}',
        }),
    'trained random': dict(
        config=_block,
        options={
            'model.neck.block.pretrained': False,
            'model.neck.block.trainable': 'all',
            'model.neck.block.seed': '{seed}',
        }),
    'MLP': dict(config='../lm4ve/vit-demo_mlp_digits.py'),
}
tune = dict(
    fields=('optim_wrapper.optimizer.lr', 'param_scheduler.eta_max'),
    values=(1e-3, 3e-3, 1e-2),
    seeds=2,
    options={
        'train_dataloader.dataset.split': 'fit',
        'test_dataloader.dataset.split': 'val',
    })
