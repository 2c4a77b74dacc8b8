# Real digits: does the block help, and do its pre-trained weights matter? The
# demo's own training, all 100 epochs.
name = 'digits_controls'
title = 'Digits, ViT 64 wide and 3 deep'
base = '../lm4ve/vit-demo_none_digits.py'
metric = 'accuracy/top1'
seeds = 8
reference = 'frozen pre-trained'

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
# Variants differ in the rate from which they learn nothing (.002 to .01): a coarse
# list would decide the comparison.
tune = dict(
    fields=('optim_wrapper.optimizer.lr', 'param_scheduler.eta_max'),
    values=(1e-3, 2e-3, 3e-3, 1e-2),
    seeds=1,
    options={
        'train_dataloader.dataset.split': 'fit',
        'test_dataloader.dataset.split': 'val',
    })
