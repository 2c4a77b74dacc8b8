# METER's fine-tuning for retrieval: one true caption is ranked against 15 false ones,
# and a matching head that does not train judges them too. Texts are shorter than
# questions' 50.
_base_ = ['./meter.py', './schedule_10e.py']

model = dict(
    data_preprocessor=dict(max_length=40),
    head=dict(
        type='lm4ve.RetrievalHead', in_channels=1536, itm=dict(weight=1.0, frozen=True)
    ),
)
optim_wrapper = dict(paramwise_cfg=dict(head=5))
