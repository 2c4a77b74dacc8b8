# Moving digits: do products in 8 bits cost accuracy? At the rate that was tuned for
# fp32.
_base_ = ['./_base_/eight_bits.py', './_base_/moving-digits_1000.py']

name = 'moving-digits_eight-bits'
title = 'Moving digits, the frozen block in 8 bits'
base = '../video/videomae-demo_minilm_moving-digits.py'
common = {'optim_wrapper.optimizer.lr': 1e-3, 'param_scheduler.eta_max': 1e-3}
