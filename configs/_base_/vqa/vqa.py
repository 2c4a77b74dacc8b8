# METER's fine-tuning for questions: a head of answers, trained on annotators' soft
# scores.
_base_ = ['./meter.py', './schedule_10e.py']

model = dict(
    head=dict(
        type='lm4ve.VQAHead',
        # Of train and val, by tools/vqa/make_vocabulary.py.
        vocabulary='data/coco/vqav2/vocabulary.json',
        in_channels=1536,
    )
)
