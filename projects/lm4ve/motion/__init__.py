"""Motion forecasting: Argoverse 1 and 2, VectorNet, mmTransformer, metrics."""
from lm4ve.motion.argoverse1 import Argoverse1Reader
from lm4ve.motion.argoverse2 import Argoverse2Reader
from lm4ve.motion.cache import SceneCache
from lm4ve.motion.datasets import MotionDataset
from lm4ve.motion.forecaster import MotionForecaster
from lm4ve.motion.metrics import MotionMetric, forecast_metrics
from lm4ve.motion.preprocess import preprocess
from lm4ve.motion.scene import Scene, SceneError
from lm4ve.motion.transforms import (
    FlipScene,
    MaskHistory,
    VectorizeScene,
    collate_scenes,
)
from lm4ve.motion.vectornet import TrajectoryDecoder, VectorNet

__all__ = [
    'Argoverse1Reader', 'Argoverse2Reader', 'FlipScene', 'MaskHistory',
    'MotionDataset', 'MotionForecaster', 'MotionMetric', 'Scene', 'SceneCache',
    'SceneError', 'TrajectoryDecoder', 'VectorNet', 'VectorizeScene',
    'collate_scenes', 'forecast_metrics', 'preprocess'
]
