# SQA3D on ScanNet, prepared as in docs/guides/rooms.md:
#   data/scannet/qa/SQA_{train,val,test}.json and answer_counter.json
# data/scannet/scannet_data/<scene>_{vert,aligned_vert,ins_label,sem_label,aligned_bbox}.npy
#   data/scannet/scans/<scene>/<scene>.txt
# Validated on val, tested on test, whose answers are known. For the official pair of
# files:
#   dataset.question_file and dataset.ann_file
train_dataloader = dict(
    batch_size=32,
    num_workers=8,
    dataset=dict(
        type='lm4ve.SQA3DDataset',
        split='train',
        answers='data/scannet/qa/answer_counter.json',
        pipeline=[
            dict(type='lm4ve.LoadScene'),
            dict(type='lm4ve.SampleScenePoints', num=40000),
            dict(type='lm4ve.AugmentScene'),
            dict(type='lm4ve.PackScene'),
        ],
    ),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=32,
    num_workers=8,
    dataset=dict(
        type='lm4ve.SQA3DDataset',
        split='val',
        pipeline=[
            dict(type='lm4ve.LoadScene', annotations=False),
            # The release draws other points in each test.
            dict(type='lm4ve.SampleScenePoints', num=40000, seed=0),
            dict(type='lm4ve.PackScene'),
        ],
    ),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
val_evaluator = dict(type='lm4ve.SQA3DAccuracy')
val_cfg = dict()
test_dataloader = dict(
    val_dataloader, dataset=dict(val_dataloader['dataset'], split='test')
)
test_evaluator = val_evaluator
test_cfg = dict()
