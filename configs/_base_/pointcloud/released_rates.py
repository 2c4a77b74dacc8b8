# Point-BERT's own groups: all biases and norms, and the class token, at a tenth of the
# rate and without decay (tools/builder.py of the release). A config writes
#   optim_wrapper = dict(paramwise_cfg=_base_.released_rates)
tenth = dict(lr_mult=0.1, decay_mult=0.0)
released_rates = dict(
    bias_lr_mult=0.1,
    bias_decay_mult=0.0,
    custom_keys={
        '.cls_token': tenth,
        '.norm': tenth,
        # The batch norms of the groups' PointNet.
        '.first_conv.1.': tenth,
        '.second_conv.1.': tenth,
    },
)
