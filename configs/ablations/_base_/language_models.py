# The last block of each OPT in place of LLaMA-7B's, in the type that it was released in.
# A grid names the configs without a block and with LLaMA's.
_dtypes = {
    '125m': 'float32',
    '350m': 'float32',
    '1.3b': 'float16',
    '2.7b': 'float16',
    '6.7b': 'float16',
}
reference = 'LLaMA-7B'
variants = {
    'none': dict(),
    **{
        f'OPT-{size.upper()}': dict(
            options={
                'model.neck.block.checkpoint': f'facebook/opt-{size}',
                'model.neck.block.layers': (-1,),
                'model.neck.block.dtype': dtype,
            }
        )
        for size, dtype in _dtypes.items()
    },
    'LLaMA-7B': dict(),
}
# At the full rate the paper saw NaN with this one; it cut the rate to a fifth.
variants['OPT-350M']['options']['optim_wrapper.optimizer.lr'] = 2e-4
