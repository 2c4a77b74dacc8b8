# CMUNeXt on BUSI, breast ultrasound, without a block.
_base_ = ['../_base_/medical/cmunext.py', '../_base_/medical/lesions.py']
