# Controls that ask whether it is the language: weights that were pre-trained on a
# formal language (tools/pretrain_block.py), and a trained layer in the block's place.
seeds = 8
subject = 'frozen pre-trained'

# As many trainable parameters as a frozen block with its mappers of 384 by 64.
_attention = dict(
    _delete_=True,
    type='LLMBlock',
    arch=dict(
        model_type='bert',
        hidden_size=64,
        intermediate_size=186,
        num_attention_heads=4,
        num_hidden_layers=1,
    ),
    trainable='all',
    seed='{seed}',
)
variants = {
    'none': dict(),
    'frozen pre-trained': dict(),
    'frozen random': dict(
        options={
            'model.neck.block.pretrained': False,
            'model.neck.block.seed': '{seed}',
        }
    ),
    'Dyck': dict(options={'model.neck.block.checkpoint': 'work_dirs/blocks/dyck'}),
    'attention layer': dict(options={'model.neck.block': _attention}),
}
tune = dict(fields=('optim_wrapper.optimizer.lr', 'param_scheduler.eta_max'), seeds=1)
