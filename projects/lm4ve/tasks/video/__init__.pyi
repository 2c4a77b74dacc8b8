from lm4ve.tasks.base.task import Task as Task
from lm4ve.tasks.video.datasets.moving_digits import (
    MovingDigitsDataset as MovingDigitsDataset,
)
from lm4ve.tasks.video.datasets.shards import (
    RepeatAugVideoShards as RepeatAugVideoShards,
)
from lm4ve.tasks.video.datasets.shards import VideoShards as VideoShards
from lm4ve.tasks.video.datasets.video_lists import (
    CheckedRepeatAugDataset as CheckedRepeatAugDataset,
)
from lm4ve.tasks.video.datasets.video_lists import (
    CheckedVideoDataset as CheckedVideoDataset,
)
from lm4ve.tasks.video.models.backbones import (
    RawSwinTransformer3D as RawSwinTransformer3D,
)
from lm4ve.tasks.video.models.blending import ReversedCutmix as ReversedCutmix
from lm4ve.tasks.video.models.blending import ReversedMixup as ReversedMixup
from lm4ve.tasks.video.models.recognizer import Recognizer2D as Recognizer2D
from lm4ve.tasks.video.transforms.rand_augment import ClipRandAugment as ClipRandAugment
from lm4ve.tasks.video.transforms.views import ResizeShortSide as ResizeShortSide
from lm4ve.tasks.video.transforms.views import ThreeCrop as ThreeCrop
from lm4ve.tasks.video.transforms.views import UniformViews as UniformViews

TASK: Task
