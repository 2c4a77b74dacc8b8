# The embedded questions: a small METER without a block.
_base_ = [
    '../_base_/vqa/meter-demo.py',
    '../_base_/vqa/easy-vqa.py',
    '../_base_/vqa/two_cosines_34e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    # Measured on the training split.
    data_preprocessor=dict(mean=[230.6, 230.9, 228.6], std=[49.4, 47.7, 52.5]),
    image_encoder=dict(img_size=64),
    head=dict(
        type='lm4ve.VQAHead',
        vocabulary=[
            *('circle', 'green', 'red', 'gray', 'yes', 'teal', 'black'),
            *('rectangle', 'yellow', 'triangle', 'brown', 'blue', 'no'),
        ],
        in_channels=128,
    ),
)
# Most questions are to be answered with yes or no. Among them the small encoder learns
# to see nothing but colors, so that it is asked to name shapes and colors first.
custom_hooks = [
    dict(
        type='lm4ve.AskFirstHook',
        answers=[
            *('circle', 'green', 'red', 'gray', 'teal', 'black'),
            *('rectangle', 'yellow', 'triangle', 'brown', 'blue'),
        ],
        epochs=10,
    )
]
