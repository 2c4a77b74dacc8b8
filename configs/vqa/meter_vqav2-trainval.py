# METER trained on all of VQAv2's questions with answers, train2014 and val2014, for the
# server's figures of test-dev: a test writes the file to upload. The validation asks
# questions that were trained on; it only tells that the training goes on.
_base_ = './meter_vqav2.py'

train_dataloader = dict(dataset=_base_.trainval)
test_dataloader = dict(dataset=_base_.test_dev)
test_evaluator = _base_.test_dev_file
