"""Medical pictures and volumes: the models that others have built on the frozen block."""

from lm4ve.tasks.base.task import Task

TASK = Task(
    name='medical',
    title='segmentation of medical volumes',
    package=__name__,
    extra='medical',
    models=('lm4ve.tasks.medical.models.volume_vit.VolumeSegmentor',),
    registers={
        'datasets.decathlon': ('Decathlon',),
        'datasets.medmnist': ('MedMNIST',),
        'demo.ultrasound': ('UltrasoundDemo',),
        'metrics.lesions': ('LesionIoU',),
        'metrics.medmnist': ('MedMNISTMetric',),
        'metrics.volumes': ('VolumeMetric',),
        'models.cmunext': ('BinaryDiceLoss', 'CMUNeXt', 'CMUNeXtHead'),
        'models.vivit': ('ViViT',),
        'models.volume_vit': ('VolumeSegmentor', 'VolumeViT'),
        'transforms.lesions': ('BinaryMask',),
        'transforms.volumes': ('LoadVolume', 'MonaiTransform', 'PackVolume'),
    },
    input_noun='a volume',
    input_suffixes=('.nii', '.gz'),
)

# For editors and type checkers, __init__.pyi says the same.
__getattr__, __dir__, __all__ = TASK.attribute, lambda: TASK.names, TASK.names
