"""Motion forecasting: Argoverse 1 and 2, VectorNet, mmTransformer, metrics."""
from lm4ve.motion.argoverse1 import Argoverse1Reader
from lm4ve.motion.argoverse2 import Argoverse2Reader
from lm4ve.motion.cache import SceneCache
from lm4ve.motion.datasets import MotionDataset
from lm4ve.motion.forecaster import MotionForecaster
from lm4ve.motion.metrics import MotionMetric, forecast_metrics
from lm4ve.motion.mmtransformer import MMTransformer, ProposalDecoder
from lm4ve.motion.preprocess import preprocess
from lm4ve.motion.scene import Scene, SceneError
from lm4ve.motion.transforms import (
    FlipScene,
    MaskHistory,
    VectorizeScene,
    collate_scenes,
)
from lm4ve.motion.vectornet import TrajectoryDecoder, VectorNet
from lm4ve.motion.visualization import (
    MotionVisualizationHook,
    MotionVisualizer,
    save_grid,
)

__all__ = [
    'Argoverse1Reader', 'Argoverse2Reader', 'FlipScene', 'MMTransformer',
    'MaskHistory', 'MotionDataset', 'MotionForecaster', 'MotionMetric',
    'MotionVisualizationHook', 'MotionVisualizer', 'ProposalDecoder', 'Scene',
    'SceneCache', 'SceneError', 'TrajectoryDecoder', 'VectorNet',
    'VectorizeScene', 'collate_scenes', 'forecast_metrics', 'preprocess',
    'save_grid'
]
