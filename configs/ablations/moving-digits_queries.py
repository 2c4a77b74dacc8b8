# Video (moving digits), 32 tokens: what few queries lose against all tokens. Clips and
# epochs are those of the controls; the encoder has no class token.
_base_ = './moving-digits_controls.py'

name = 'moving-digits_queries'
title = 'Moving digits, 32 tokens: few queries'
reference = 'all tokens'

_block = '../video/videomae-demo_minilm_moving-digits.py'
_query = {'model.neck.out_type': 'query'}
_mlp = {'model.neck.block': dict(_delete_=True, type='MLPBlock', embed_dims=384)}
_field = 'model.neck.queries'
variants = dict(
    _delete_=True,
    **{
        'none': dict(),
        'all tokens': dict(config=_block),
        'learned query': dict(
            config=_block, options={**_query, _field: dict(learned=1)}
        ),
        'mean': dict(config=_block, options={**_query, _field: dict(mean=True)}),
        'maximum': dict(config=_block, options={**_query, _field: dict(max=True)}),
        # Is it the block that reads, or the maximum?
        'maximum, MLP': dict(
            config=_block, options={**_query, _field: dict(max=True), **_mlp}
        ),
    },
)
tune = dict(values=(3e-4, 1e-3, 3e-3, 6e-3, 1.2e-2), seeds=2)
