# The paper's model of visual question answering, on VQAv2's validation set: the
# controls.
_base_ = './_base_/paper_controls.py'

name = 'meter_vqav2_controls'
title = 'VQAv2 (validation), METER: controls'
base = '../vqa/meter_vqav2.py'
metric = 'vqa/overall'

variants = {
    'frozen pre-trained': dict(config='../vqa/meter_llama_vqav2.py'),
    'frozen random': dict(config='../vqa/meter_llama-randinit-frozen_vqav2.py'),
    'trained random': dict(config='../vqa/meter_llama-randinit-trained_vqav2.py'),
    'MLP': dict(config='../vqa/meter_mlp_vqav2.py'),
}
