# A neck that hands on the mean of all tokens.
_base_ = './raw.py'

llm_neck = dict(out_type='avg_featmap')
