# METER trained on all of VQAv2's questions with answers, train2014 and val2014, for the
# server's figures of test-dev: a test writes the file to upload. The validation asks
# questions that were trained on; it only tells that the training goes on.
# METER does not use Visual Genome's questions. To add them, append to the data sets
#   dict(type='lm4ve.VisualGenomeQA', vocabulary=..., pipeline=_base_.train_pipeline)
_base_ = './meter_vqav2.py'

train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='ConcatDataset',
        datasets=[
            _base_.train_dataloader.dataset,
            dict(_base_.train_dataloader.dataset, split='val2014', test_mode=False),
        ],
    )
)
test_dataloader = dict(dataset=dict(split='test-dev2015'))
# What the server of EvalAI takes.
test_evaluator = dict(result_file='work_dirs/vqav2_test-dev2015.json')
