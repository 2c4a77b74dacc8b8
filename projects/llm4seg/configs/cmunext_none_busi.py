# CMUNeXt on BUSI, breast ultrasound, without a block.
_base_ = ['./_base_/cmunext.py', './_base_/lesions.py']
