"""Image classification on mmpretrain: checked folders, ImageNet variants, the demos."""

from lm4ve.data.suffixes import IMAGE_SUFFIXES
from lm4ve.tasks.base.task import Task

TASK = Task(
    name='image',
    title='image classification',
    package=__name__,
    extra='image',
    models=('mmpretrain.models.classifiers.base.BaseClassifier',),
    registers={
        'datasets.digits': ('DigitsDataset',),
        'datasets.folders': ('CheckedImageFolder', 'CheckedImageNet'),
        'datasets.imagenet_variants': ('ImageNetC', 'ImageNetVariant'),
        'datasets.samplers': ('ReleasedRepeatAugSampler',),
        'datasets.shards': ('ImageNetShards',),
        'datasets.textured_digits': ('TexturedDigits',),
        'metrics': ('CorruptionAccuracy', 'SubsetAccuracy'),
        'models.backbones': ('RawConvNeXt', 'ReleasedViT', 'WithoutNorms'),
        'models.packaged': ('PackagedEncoder',),
        'models.views': ('AverageViews',),
    },
    exports={'datasets.folders': ('CheckedImageMixin',)},
    input_noun='an image',
    tta_model='lm4ve.AverageViews',
    input_suffixes=IMAGE_SUFFIXES,
)

# Editors and type checkers read these names in __init__.pyi. The documentation's parser
# takes a call here, and warns of an attribute.
__getattr__ = TASK.attribute
__all__ = list(TASK.names)


def __dir__() -> list[str]:
    return TASK.names
