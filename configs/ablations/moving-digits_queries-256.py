# Video (moving digits), 256 tokens: what few queries lose against all tokens.
_base_ = './moving-digits_queries.py'

name = 'moving-digits_queries-256'
title = 'Moving digits, 256 tokens: few queries'

common = {'model.backbone.patch_size': 4, 'model.backbone.tubelet_size': 2}
# A training with all tokens takes five minutes of a core, so one seed tunes.
tune = dict(values=(1e-3, 3e-3, 6e-3, 1.2e-2), seeds=1)
