from lm4ve.tasks.base.task import Task as Task
from lm4ve.tasks.medical.datasets.decathlon import Decathlon as Decathlon
from lm4ve.tasks.medical.datasets.masks import CheckedSegDataset as CheckedSegDataset
from lm4ve.tasks.medical.datasets.medmnist import MedMNIST as MedMNIST
from lm4ve.tasks.medical.demo.ultrasound import UltrasoundDemo as UltrasoundDemo
from lm4ve.tasks.medical.metrics.lesions import LesionIoU as LesionIoU
from lm4ve.tasks.medical.metrics.medmnist import MedMNISTMetric as MedMNISTMetric
from lm4ve.tasks.medical.metrics.volumes import VolumeMetric as VolumeMetric
from lm4ve.tasks.medical.metrics.wide_head import WideHeadMetric as WideHeadMetric
from lm4ve.tasks.medical.models.cmunext import BinaryDiceLoss as BinaryDiceLoss
from lm4ve.tasks.medical.models.cmunext import CMUNeXt as CMUNeXt
from lm4ve.tasks.medical.models.cmunext import CMUNeXtHead as CMUNeXtHead
from lm4ve.tasks.medical.models.vivit import ViViT as ViViT
from lm4ve.tasks.medical.models.volume_losses import DiceBCELoss as DiceBCELoss
from lm4ve.tasks.medical.models.volume_losses import MonaiLoss as MonaiLoss
from lm4ve.tasks.medical.models.volume_vit import VolumeSegmentor as VolumeSegmentor
from lm4ve.tasks.medical.models.volume_vit import VolumeViT as VolumeViT
from lm4ve.tasks.medical.optim import HighestLossStopHook as HighestLossStopHook
from lm4ve.tasks.medical.optim import LateCosineAnnealingLR as LateCosineAnnealingLR
from lm4ve.tasks.medical.transforms.jpeg import JPEGCopy as JPEGCopy
from lm4ve.tasks.medical.transforms.lesions import BinaryMask as BinaryMask
from lm4ve.tasks.medical.transforms.lesions import RandomRotate90 as RandomRotate90
from lm4ve.tasks.medical.transforms.released_volumes import ReverseAxes as ReverseAxes
from lm4ve.tasks.medical.transforms.released_volumes import RotateVolume as RotateVolume
from lm4ve.tasks.medical.transforms.released_volumes import (
    SelectChannel as SelectChannel,
)
from lm4ve.tasks.medical.transforms.released_volumes import ZoomVolume as ZoomVolume
from lm4ve.tasks.medical.transforms.volumes import LoadVolume as LoadVolume
from lm4ve.tasks.medical.transforms.volumes import MonaiTransform as MonaiTransform
from lm4ve.tasks.medical.transforms.volumes import PackVolume as PackVolume

TASK: Task
