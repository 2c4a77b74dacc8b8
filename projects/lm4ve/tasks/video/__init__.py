"""Action recognition on mmaction2: checked video lists, augmentation, the demo."""

from lm4ve.tasks.base.task import Task

TASK = Task(
    name='video',
    title='action recognition',
    package=__name__,
    extra='video',
    models=('mmaction.models.recognizers.base.BaseRecognizer',),
    registers={
        'datasets.moving_digits': ('MovingDigitsDataset',),
        'datasets.shards': ('RepeatAugVideoShards', 'VideoShards'),
        'datasets.video_lists': ('CheckedRepeatAugDataset', 'CheckedVideoDataset'),
        'models.backbones': ('RawSwinTransformer3D',),
        'models.blending': ('ReversedCutmix', 'ReversedMixup'),
        'models.recognizer': ('Recognizer2D',),
        'transforms.rand_augment': ('ClipRandAugment',),
        'transforms.views': ('ResizeShortSide', 'ThreeCrop', 'UniformViews'),
    },
    inferencer='lm4ve.tasks.video.inference.VideoInferencer',
    input_noun='a video',
    input_suffixes=(
        '.mp4',
        '.avi',
        '.mkv',
        '.mov',
        '.webm',
        '.m4v',
        '.mpg',
        '.mpeg',
        '.gif',
    ),
    takes_folders=True,
)

# Editors and type checkers read these names in __init__.pyi. The documentation's parser
# takes a call here, and warns of an attribute.
__getattr__ = TASK.attribute
__all__ = list(TASK.names)


def __dir__() -> list[str]:
    return TASK.names
