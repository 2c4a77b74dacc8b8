# Real digits: do products in 8 bits cost accuracy? At the rate that was tuned for fp32.
_base_ = './_base_/eight_bits.py'

name = 'digits_eight-bits'
title = 'Digits, the frozen block in 8 bits'
base = '../lm4ve/vit-demo_minilm_digits.py'
metric = 'accuracy/top1'
common = {'optim_wrapper.optimizer.lr': 2e-3, 'param_scheduler.eta_max': 2e-3}
