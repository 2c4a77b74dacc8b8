# A neck that hands on all tokens, normalized. `_delete_` clears what the base has in
# its place, also None. To be completed by the config that uses it:
#   neck=dict(**_base_.llm_neck, in_channels=..., block=_base_.llm_block)
llm_neck = dict(_delete_=True, type='LLMBlockNeck')
