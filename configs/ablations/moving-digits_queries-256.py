# Video (moving digits), 256 tokens: what few queries lose against all tokens.
_base_ = './moving-digits_queries.py'

name = 'moving-digits_queries-256'
title = 'Moving digits, 256 tokens: few queries'

common = {'model.backbone.patch_size': 4, 'model.backbone.tubelet_size': 2}
tune = dict(values=(3e-4, 1e-3, 3e-3, 6e-3))
