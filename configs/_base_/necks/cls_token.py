# A neck that hands on the class token, the only one whose output is computed.
_base_ = './raw.py'

llm_neck = dict(out_type='cls_token')
