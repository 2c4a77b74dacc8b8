"""Medical pictures and volumes: the models that others have built on the frozen block.

A project beside lm4ve: it imports lm4ve, which never imports it. Its configs name it in
``custom_imports``, and the import adds its task to the table of tasks.
"""

from lm4ve.tasks import Task, register_task

TASK = Task(
    name='medical',
    title='segmentation of medical volumes',
    package=__name__,
    extra='medical',
    models=('llm4seg.models.volume_vit.VolumeSegmentor',),
    registers={
        'datasets.decathlon': ('Decathlon',),
        'datasets.masks': ('CheckedSegDataset',),
        'datasets.medmnist': ('MedMNIST',),
        'datasets.ultrasound': ('UltrasoundDemo',),
        'metrics.lesions': ('LesionIoU',),
        'metrics.medmnist': ('MedMNISTMetric',),
        'metrics.volumes': ('VolumeMetric',),
        'metrics.wide_head': ('WideHeadMetric',),
        'models.cmunext': ('BinaryDiceLoss', 'CMUNeXt', 'CMUNeXtHead'),
        'models.vivit': ('ViViT',),
        'models.volume_losses': ('DiceBCELoss', 'MonaiLoss'),
        'models.volume_vit': ('VolumeSegmentor', 'VolumeViT'),
        'optim': ('HighestLossStopHook', 'LateCosineAnnealingLR'),
        'transforms.jpeg': ('JPEGCopy',),
        'transforms.lesions': ('BinaryMask', 'RandomRotate90'),
        'transforms.released_volumes': (
            'ReverseAxes',
            'RotateVolume',
            'SelectChannel',
            'ZoomVolume',
        ),
        'transforms.volumes': ('LoadVolume', 'MonaiTransform', 'PackVolume'),
    },
    input_noun='a volume',
    input_suffixes=('.nii', '.gz'),
)

# Editors and type checkers read these names in __init__.pyi. The documentation's parser
# takes a call here, and warns of an attribute.
__getattr__ = TASK.attribute
__all__ = list(TASK.names)


def __dir__() -> list[str]:
    return TASK.names


# It reads TASK.
register_task('medical', __name__)
