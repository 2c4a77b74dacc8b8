from lm4ve.tasks.base.task import Task as Task
from lm4ve.tasks.image.datasets.digits import DigitsDataset as DigitsDataset
from lm4ve.tasks.image.datasets.folders import CheckedImageFolder as CheckedImageFolder
from lm4ve.tasks.image.datasets.folders import CheckedImageMixin as CheckedImageMixin
from lm4ve.tasks.image.datasets.folders import CheckedImageNet as CheckedImageNet
from lm4ve.tasks.image.datasets.imagenet_variants import ImageNetC as ImageNetC
from lm4ve.tasks.image.datasets.imagenet_variants import (
    ImageNetVariant as ImageNetVariant,
)
from lm4ve.tasks.image.datasets.samplers import (
    ReleasedRepeatAugSampler as ReleasedRepeatAugSampler,
)
from lm4ve.tasks.image.datasets.shards import ImageNetShards as ImageNetShards
from lm4ve.tasks.image.datasets.textured_digits import TexturedDigits as TexturedDigits
from lm4ve.tasks.image.metrics import CorruptionAccuracy as CorruptionAccuracy
from lm4ve.tasks.image.metrics import SubsetAccuracy as SubsetAccuracy
from lm4ve.tasks.image.models.backbones import RawConvNeXt as RawConvNeXt
from lm4ve.tasks.image.models.backbones import ReleasedViT as ReleasedViT
from lm4ve.tasks.image.models.backbones import WithoutNorms as WithoutNorms
from lm4ve.tasks.image.models.packaged import PackagedEncoder as PackagedEncoder
from lm4ve.tasks.image.models.views import AverageViews as AverageViews

TASK: Task
