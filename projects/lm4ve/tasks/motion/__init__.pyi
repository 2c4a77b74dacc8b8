from lm4ve.tasks.base.task import Task as Task
from lm4ve.tasks.motion.datasets.argoverse import Argoverse1Reader as Argoverse1Reader
from lm4ve.tasks.motion.datasets.argoverse import Argoverse2Reader as Argoverse2Reader
from lm4ve.tasks.motion.datasets.cache import MotionDataset as MotionDataset
from lm4ve.tasks.motion.datasets.cache import SceneCache as SceneCache
from lm4ve.tasks.motion.datasets.cache import preprocess_split as preprocess_split
from lm4ve.tasks.motion.datasets.traffic_files import TrafficDataset as TrafficDataset
from lm4ve.tasks.motion.metrics import MotionMetric as MotionMetric
from lm4ve.tasks.motion.metrics import forecast_metrics as forecast_metrics
from lm4ve.tasks.motion.models.forecaster import MotionForecaster as MotionForecaster
from lm4ve.tasks.motion.models.mmtransformer import MMTransformer as MMTransformer
from lm4ve.tasks.motion.models.mmtransformer import ProposalDecoder as ProposalDecoder
from lm4ve.tasks.motion.models.realmotion import RealMotion as RealMotion
from lm4ve.tasks.motion.models.realmotion import RealMotionDecoder as RealMotionDecoder
from lm4ve.tasks.motion.models.stream_forecaster import (
    StreamForecaster as StreamForecaster,
)
from lm4ve.tasks.motion.models.vectornet import TrajectoryDecoder as TrajectoryDecoder
from lm4ve.tasks.motion.models.vectornet import VectorNet as VectorNet
from lm4ve.tasks.motion.structures import Scene as Scene
from lm4ve.tasks.motion.structures import SceneError as SceneError
from lm4ve.tasks.motion.transforms.scenes import FlipScene as FlipScene
from lm4ve.tasks.motion.transforms.scenes import MaskHistory as MaskHistory
from lm4ve.tasks.motion.transforms.scenes import VectorizeScene as VectorizeScene
from lm4ve.tasks.motion.transforms.scenes import collate_scenes as collate_scenes
from lm4ve.tasks.motion.transforms.sub_scenes import EstimateMotion as EstimateMotion
from lm4ve.tasks.motion.transforms.sub_scenes import (
    VectorizeSubScenes as VectorizeSubScenes,
)
from lm4ve.tasks.motion.transforms.sub_scenes import (
    collate_sub_scenes as collate_sub_scenes,
)
from lm4ve.tasks.motion.visualization import (
    MotionVisualizationHook as MotionVisualizationHook,
)
from lm4ve.tasks.motion.visualization import MotionVisualizer as MotionVisualizer

TASK: Task
