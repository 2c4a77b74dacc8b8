# Point clouds (primitives): what two queries lose against all tokens. The head reads
# two vectors: the class token, and the maximum of the others or a query in its place.
_base_ = './primitives_controls.py'

name = 'primitives_queries'
title = 'Primitives, Point-BERT: the class token and another query'
reference = 'all tokens'

_block = '../pointcloud/pointbert-demo_minilm_primitives.py'
_query = {'model.neck.out_type': 'query'}
_field, _pair = 'model.neck.queries', dict(cls_token=True, join='concat')
variants = dict(
    _delete_=True,
    **{
        'none': dict(),
        'all tokens': dict(config=_block),
        'learned query': dict(
            config=_block, options={**_query, _field: dict(_pair, learned=1)}
        ),
        'mean': dict(config=_block, options={**_query, _field: dict(_pair, mean=True)}),
        'maximum': dict(
            config=_block, options={**_query, _field: dict(_pair, max=True)}
        ),
    },
)
# One seed's 200 objects do not tell rates apart.
tune = dict(seeds=2)
