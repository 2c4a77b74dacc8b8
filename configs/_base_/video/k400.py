# Kinetics-400 as VideoMAE trains on it: 16 frames, every fourth; tests on 5 segments
# x 3 crops. The rest is as on Something-Something V2, but flips are allowed.
_base_ = './ssv2.py'

train_pipeline = [
    dict(type='DecordInit'),
    dict(type='SampleFrames', clip_len=16, frame_interval=4, num_clips=1),
    *_base_.train_pipeline[2:5],  # decoding, augmentation and crop, size
    dict(type='Flip', flip_ratio=0.5),
    *_base_.train_pipeline[5:],
]
val_pipeline = [
    dict(type='DecordInit'),
    dict(
        type='SampleFrames', clip_len=16, frame_interval=4, num_clips=1, test_mode=True
    ),
    *_base_.val_pipeline[2:],
]
test_pipeline = [
    dict(type='DecordInit'),
    dict(
        type='SampleFrames', clip_len=16, frame_interval=4, num_clips=5, test_mode=True
    ),
    *_base_.test_pipeline[2:],
]

train_dataloader = dict(
    dataset=dict(
        ann_file='data/kinetics400/kinetics400_train_list_videos.txt',
        data_prefix=dict(video='data/kinetics400/videos_train'),
        pipeline=train_pipeline,
    )
)
val_dataloader = dict(
    dataset=dict(
        ann_file='data/kinetics400/kinetics400_val_list_videos.txt',
        data_prefix=dict(video='data/kinetics400/videos_val'),
        pipeline=val_pipeline,
    )
)
test_dataloader = dict(
    dataset=dict(
        ann_file='data/kinetics400/kinetics400_val_list_videos.txt',
        data_prefix=dict(video='data/kinetics400/videos_val'),
        pipeline=test_pipeline,
    )
)
